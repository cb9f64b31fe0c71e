//! What a ranker is asked about one user's candidates: one prompt, or several whose answers become one.
//!
//! A prompt may show fewer candidates than there are. They run in heats then, and the best of each heat in a final. A heat's
//! logits have a level of their own, which nothing can be compared with; those of its members who run in the final have a second
//! logit there, and the mean difference of the two brings the rest of the heat to the level of the final.

use model::ranker::{Ranker, SharedPrefix};
use rayon::prelude::*;

use crate::Result;
use crate::population::Population;
use crate::ranking::Prompts;

/// Somebody who is asked about candidates.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The user.
    pub(crate) who: String,
    /// The items that the user had.
    pub(crate) history: Vec<u32>,
    /// Candidates in the retriever's order; none, and nothing is asked.
    pub(crate) candidates: Vec<u32>,
}

/// How a ranker is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) prompts: &'a Prompts,
    pub(crate) population: &'a Population,
    /// Orders of the candidates of every prompt, whose logits are averaged.
    pub(crate) orders: usize,
}

impl Asking<'_> {
    /// The prompts that do not depend on any answer: of each question as many as it has heats, in all their orders.
    pub(crate) fn begin(&self, questions: &[Question]) -> Result<Vec<Vec<Vec<u32>>>> {
        let of = |question: &Question| {
            let heats = heats(question.candidates.len(), self.window());
            let prompts = heats.iter().map(|heat| self.orders_of(question, heat));
            Ok(prompts.collect::<Result<Vec<_>>>()?.concat())
        };
        questions.par_iter().map(of).collect()
    }

    /// The logit of every candidate of some questions in the retriever's order; `begun` is what [`Asking::begin`] made of them.
    pub(crate) fn logits(
        &self,
        ranker: &Ranker,
        shared: Option<&SharedPrefix>,
        questions: &[Question],
        begun: &[Vec<Vec<u32>>],
    ) -> Result<Vec<Vec<f32>>> {
        let labels = self.prompts.verbalizer.tokens();
        let answers = ranker.score(shared, &begun.concat(), labels)?;
        let mut answers = answers.chunks(self.orders);
        let mut runs: Vec<Run> = Vec::new();
        for question in questions {
            let heats = heats(question.candidates.len(), self.window());
            let logits = heats.iter().zip(&mut answers).map(|(heat, answers)| averaged(answers, heat.len())).collect();
            runs.push(Run { heats, logits });
        }
        let finals: Vec<(usize, Vec<usize>)> = (0..runs.len())
            .filter(|at| runs[*at].heats.len() > 1)
            .map(|at| (at, runs[at].finalists(self.window())))
            .collect();
        let prompts = finals.par_iter().map(|(at, finalists)| self.orders_of(&questions[*at], finalists));
        let answers = ranker.score(shared, &prompts.collect::<Result<Vec<_>>>()?.concat(), labels)?;
        let mut finals = finals.into_iter().zip(answers.chunks(self.orders)).peekable();
        let settle = |(at, run): (usize, Run)| match finals.next_if(|((of, _), _)| *of == at) {
            Some(((_, finalists), answers)) => run.settle(&finalists, &averaged(answers, finalists.len())),
            None => run.logits.into_iter().next().unwrap_or_default(),
        };
        Ok(runs.into_iter().enumerate().map(settle).collect())
    }

    /// The most candidates of a prompt.
    fn window(&self) -> usize {
        self.prompts.verbalizer.tokens().len()
    }

    /// The prompts about some of the candidates, each turned a bit further than the one before.
    fn orders_of(&self, question: &Question, places: &[usize]) -> Result<Vec<Vec<u32>>> {
        let candidates: Vec<u32> = places.iter().map(|place| question.candidates[*place]).collect();
        let order = |order| {
            let mut turned = candidates.clone();
            turned.rotate_left(turn(order, self.orders, candidates.len()));
            Ok(self.prompts.prompt(self.population, &question.who, &question.history, &turned)?.ids)
        };
        (0..self.orders).map(order).collect()
    }
}

/// The prompts that a question takes.
pub(crate) fn prompts_of(candidates: usize, window: usize) -> usize {
    match heats(candidates, window).len() {
        heats @ ..=1 => heats,
        heats => heats + 1,
    }
}

/// Heats of at most `window` candidates, by places: dealt like cards, so that none is harder than another.
fn heats(candidates: usize, window: usize) -> Vec<Vec<usize>> {
    let heats = candidates.div_ceil(window.max(1));
    (0..heats).map(|heat| (heat..candidates).step_by(heats).collect()).collect()
}

/// Heats that were run.
struct Run {
    /// Places of candidates in the retriever's order.
    heats: Vec<Vec<usize>>,
    /// Their logits.
    logits: Vec<Vec<f32>>,
}

impl Run {
    /// The best of each heat, as many of all as a prompt shows, in the retriever's order. Of equal ones the retriever's first.
    fn finalists(&self, window: usize) -> Vec<usize> {
        let each = window / self.heats.len();
        let mut finalists: Vec<usize> = Vec::new();
        for (heat, logits) in self.heats.iter().zip(&self.logits) {
            let mut order: Vec<usize> = (0..heat.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            finalists.extend(order.into_iter().take(each).map(|at| heat[at]));
        }
        finalists.sort_unstable();
        finalists
    }

    /// One logit of every candidate: that of the final, or that of the heat at the final's level.
    fn settle(self, finalists: &[usize], finals: &[f32]) -> Vec<f32> {
        let mut settled = vec![f32::NEG_INFINITY; self.heats.iter().map(Vec::len).sum()];
        let in_final = |place: &usize| Some(finals[finalists.binary_search(place).ok()?]);
        for (heat, logits) in self.heats.iter().zip(&self.logits) {
            let twice: Vec<f32> =
                heat.iter().zip(logits).filter_map(|(place, logit)| Some(in_final(place)? - logit)).collect();
            let level = twice.iter().sum::<f32>() / twice.len() as f32;
            for (place, logit) in heat.iter().zip(logits) {
                settled[*place] = in_final(place).unwrap_or(logit + level);
            }
        }
        settled
    }
}

/// The mean of an item's logits over all orders, in the order that none has turned. A short list leaves labels that stand for
/// nothing.
fn averaged(orders: &[Vec<f32>], candidates: usize) -> Vec<f32> {
    let of = |item: usize| {
        let at = |(order, logits): (usize, &Vec<f32>)| {
            logits[(item + candidates - turn(order, orders.len(), candidates)) % candidates]
        };
        orders.iter().enumerate().map(at).sum::<f32>() / orders.len() as f32
    };
    (0..candidates).map(of).collect()
}

/// By how many places an order is turned: every candidate comes to places that are spread evenly.
fn turn(order: usize, orders: usize, candidates: usize) -> usize {
    order * candidates / orders
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_turned_orders_come_back_to_their_items() {
        // Three orders of five candidates, in each of which an item's logit is its number and one of the labels is left over.
        let orders: Vec<Vec<f32>> = (0..3)
            .map(|order| {
                let mut items: Vec<f32> = (0..5).map(|i| i as f32).collect();
                items.rotate_left(turn(order, 3, 5));
                items.push(99.0);
                items
            })
            .collect();
        assert_ne!(orders[1], orders[0]);
        assert_eq!(averaged(&orders, 5), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(averaged(&orders, 0).is_empty());
    }

    #[test]
    fn candidates_are_dealt_to_heats() {
        assert_eq!(heats(3, 4), [vec![0, 1, 2]]);
        assert_eq!(heats(9, 4), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5, 8]]);
        assert!(heats(0, 4).is_empty());
        for (candidates, window) in (2..40).flat_map(|window| (0..=window * window).map(move |c| (c, window))) {
            let dealt = heats(candidates, window);
            assert!(dealt.iter().all(|heat| !heat.is_empty() && heat.len() <= window));
            // A final has somebody of every heat, so that each has a level.
            assert!(dealt.is_empty() || window / dealt.len() >= 1, "{candidates} by {window}");
            let mut all = dealt.concat();
            all.sort_unstable();
            assert_eq!(all, (0..candidates).collect::<Vec<_>>());
        }
        assert_eq!([0, 4, 5, 9].map(|candidates| prompts_of(candidates, 4)), [0, 1, 3, 4]);
    }

    /// A ranker whose logits are a liking for the item and a level of the prompt is understood as if it had seen all at once.
    #[test]
    fn a_final_brings_heats_to_one_level() {
        let liking = |place: usize| ((place * 7) % 30) as f32 / 2.0;
        let ask = |places: &[usize], level: f32| places.iter().map(|place| liking(*place) + level).collect::<Vec<_>>();
        let heats = heats(30, 8);
        let logits = heats.iter().enumerate().map(|(heat, places)| ask(places, heat as f32 * 100.0)).collect();
        let run = Run { heats, logits };
        let finalists = run.finalists(8);
        assert_eq!(finalists.len(), 8);
        assert!(finalists.is_sorted());
        let finals = ask(&finalists, -3.0);
        let settled = run.settle(&finalists, &finals);
        assert_eq!(settled, (0..30).map(|place| liking(place) - 3.0).collect::<Vec<_>>());
    }
}
