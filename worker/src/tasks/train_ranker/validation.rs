//! How good the ranker is on held-out items, while it trains.

use data::dataset::Holdout;
use data::job::{Split, Stage};
use data::metrics::rank_of;
use data::tables::CandidateRow;
use model::ranker::Ranker;
use rayon::prelude::*;

use crate::calibration::{Answered, gain_at};
use crate::context::Context;
use crate::population::{Population, User, open_table, read_shard};
use crate::ranking::Prompts;
use crate::tasks::rank::numbers;
use crate::{Error, Result};

/// Prompts that are scored together, between two looks at the stop signal.
const PROMPTS: usize = 32;

/// Validation users whose held-out item is among the candidates, as prompts.
#[derive(Default)]
pub(super) struct Validation {
    prompts: Vec<Vec<u32>>,
    /// Where the held-out item stands among the candidates, from 0, and how many candidates there are.
    pub(super) answers: Vec<(usize, usize)>,
    /// The retriever's scores of the candidates.
    retriever: Vec<Vec<f32>>,
}

impl Validation {
    pub(super) fn open(cx: &Context, population: &Population, prompts: &Prompts) -> Result<Self> {
        let candidates = open_table(cx, Stage::Retrieve, &cx.input(Stage::Retrieve, Some(Split::Validation))?)?;
        let mut this = Self::default();
        for shard in 0..population.shards() {
            cx.check()?;
            let users = population.shard(cx, shard)?;
            let rows = read_shard(cx, &candidates, shard, &users, |r: &CandidateRow| &r.user_id)?;
            this.add(population, prompts, &users, &rows)?;
        }
        Ok(this)
    }

    fn add(&mut self, population: &Population, prompts: &Prompts, users: &[User], rows: &[CandidateRow]) -> Result<()> {
        let place = |user: &User, row: &CandidateRow| {
            let target = Holdout::of(&user.items, Split::Validation).target.map(|t| population.catalogue.id(*t));
            Some((rank_of(&row.items, target?)? as usize - 1, row.items.len()))
        };
        let subset: Vec<_> =
            users.iter().zip(rows).filter_map(|(user, row)| Some((user, row, place(user, row)?))).collect();
        let build = |(user, row, _): &(&User, &CandidateRow, _)| {
            let history = Holdout::of(&user.items, Split::Validation).history;
            Ok(prompts.prompt(population, &user.id, history, &numbers(population, row)?)?.ids)
        };
        self.prompts.extend(subset.par_iter().map(build).collect::<Result<Vec<_>>>()?);
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
        self.answers.len().div_ceil(PROMPTS)
    }

    /// What a ranker says of the users of a part.
    pub(super) fn answered(&self, chunk: usize, ranker: &Ranker, prompts: &Prompts) -> Result<Vec<Answered>> {
        let (shared, labels) = (prompts.share(ranker)?, prompts.verbalizer.tokens());
        let part = chunk * PROMPTS..self.answers.len().min((chunk + 1) * PROMPTS);
        let scored = ranker.score(shared.as_ref(), &self.prompts[part.clone()], labels)?;
        let users = self.answers[part.clone()].iter().zip(&self.retriever[part]);
        let answered = scored.into_iter().zip(users).map(|(mut logits, (&(answer, candidates), retriever))| {
            // A short list of candidates leaves labels that stand for nothing.
            logits.truncate(candidates);
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
