//! How good the ranker is on held-out items, while it trains.

use data::dataset::Holdout;
use data::job::{Split, Stage};
use data::metrics::rank_of;
use data::tables::CandidateRow;
use model::ranker::Ranker;

use crate::asking::{Asking, Question};
use crate::calibration::{Answered, gain_at};
use crate::context::Context;
use crate::population::{Population, User, open_table, read_shard};
use crate::ranking::Prompts;
use crate::tasks::rank::numbers;
use crate::{Error, Result};

/// Users who are asked about together, between two looks at the stop signal.
const USERS: usize = 32;

/// Validation users whose held-out item is among the candidates, as prompts.
pub(super) struct Validation<'a> {
    asking: Asking<'a>,
    questions: Vec<Question>,
    /// The prompts that can be asked before any answer is there: those of each question's heats.
    begun: Vec<Vec<Vec<u32>>>,
    /// Where the held-out item stands among the candidates, from 0, and how many candidates there are.
    pub(super) answers: Vec<(usize, usize)>,
    /// The retriever's scores of the candidates.
    retriever: Vec<Vec<f32>>,
}

impl<'a> Validation<'a> {
    pub(super) fn open(cx: &Context, population: &'a Population, prompts: &'a Prompts) -> Result<Self> {
        let candidates = open_table(cx, Stage::Retrieve, &cx.input(Stage::Retrieve, Some(Split::Validation))?)?;
        let asking = Asking { prompts, population, orders: 1 };
        let (questions, begun, answers, retriever) = Default::default();
        let mut this = Self { asking, questions, begun, answers, retriever };
        for shard in 0..population.shards() {
            cx.check()?;
            let users = population.shard(cx, shard)?;
            let rows = read_shard(cx, &candidates, shard, &users, |r: &CandidateRow| &r.user_id)?;
            this.add(&users, &rows)?;
        }
        Ok(this)
    }

    fn add(&mut self, users: &[User], rows: &[CandidateRow]) -> Result<()> {
        let population = self.asking.population;
        let place = |user: &User, row: &CandidateRow| {
            let target = Holdout::of(&user.items, Split::Validation).target.map(|t| population.catalogue.id(*t));
            Some((rank_of(&row.items, target?)? as usize - 1, row.items.len()))
        };
        let subset: Vec<_> =
            users.iter().zip(rows).filter_map(|(user, row)| Some((user, row, place(user, row)?))).collect();
        let question = |(user, row, _): &(&User, &CandidateRow, _)| {
            let history = Holdout::of(&user.items, Split::Validation).history.to_vec();
            Ok(Question { who: user.id.clone(), history, candidates: numbers(population, row)? })
        };
        let questions = subset.iter().map(question).collect::<Result<Vec<_>>>()?;
        self.begun.extend(self.asking.begin(&questions)?);
        self.questions.extend(questions);
        self.answers.extend(subset.iter().map(|(_, _, answer)| *answer));
        self.retriever.extend(subset.iter().map(|(_, row, _)| row.scores.clone()));
        Ok(())
    }

    /// NDCG@10 of the retriever's own order on these users, if there are any.
    pub(super) fn order(&self) -> Option<f64> {
        let gains = self.answers.iter().map(|(answer, _)| gain_at(*answer));
        (!self.answers.is_empty()).then(|| gains.sum::<f64>() / self.answers.len() as f64)
    }

    /// The parts in which they are scored.
    pub(super) fn chunks(&self) -> usize {
        self.answers.len().div_ceil(USERS)
    }

    /// What a ranker says of the users of a part.
    pub(super) fn answered(&self, chunk: usize, ranker: &Ranker) -> Result<Vec<Answered>> {
        let shared = self.asking.prompts.share(ranker)?;
        let part = chunk * USERS..self.answers.len().min((chunk + 1) * USERS);
        let (questions, begun) = (&self.questions[part.clone()], &self.begun[part.clone()]);
        let logits = self.asking.logits(ranker, shared.as_ref(), questions, begun)?;
        let users = self.answers[part.clone()].iter().zip(&self.retriever[part]);
        let answered = logits.into_iter().zip(users).map(|(logits, (&(answer, _), retriever))| {
            if !logits[answer].is_finite() {
                let what = "the ranker's scores are not finite: lower ranker.learning_rate".to_owned();
                return Err(Error::Nothing { stage: Stage::TrainRanker, what });
            }
            Ok(Answered { logits, retriever: retriever.clone(), answer })
        });
        answered.collect()
    }

    /// NDCG@10 over these users, from the sums of all parts.
    pub(super) fn ndcg(&self, sums: &[f64]) -> Option<f64> {
        let users = self.answers.len();
        (users > 0).then(|| sums.iter().sum::<f64>() / users as f64)
    }
}
