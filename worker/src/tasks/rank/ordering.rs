//! What is made of a ranker's logits: a mean over orders, a blend, probabilities.

use data::job::Blend;
use data::tables::{CandidateRow, RankingRow};

use super::{join, source};
use crate::calibration::{self, Calibration};
use crate::context::Context;
use crate::population::User;
use crate::{Error, Result};

/// What is made of the ranker's logits.
pub(super) struct Ordering {
    /// Orders of the candidates that are asked for.
    pub(super) permutations: usize,
    /// What validation says, where the job wants that.
    pub(super) calibration: Option<Calibration>,
    pub(super) blends: bool,
    pub(super) calibrates: bool,
}

impl Ordering {
    pub(super) fn of(cx: &Context) -> Result<Self> {
        let ranker = &cx.job.ranker;
        let calibration = if ranker.is_fitted() { Some(Self::fitted(cx)?) } else { None };
        Ok(Self {
            permutations: ranker.permutations as usize,
            calibration,
            blends: ranker.blend == Blend::Fitted,
            calibrates: ranker.calibrate,
        })
    }

    fn fitted(cx: &Context) -> Result<Calibration> {
        let (store, prefix, _) = source(cx)?;
        let path = join(&prefix, calibration::FILE);
        let lacks = |why: String| Error::Misfit {
            what: format!(
                "ranker.blend and ranker.calibrate need what is fitted on validation, and {}/{path} does not have it ({why}): train \
                 the ranker again, with validation users",
                store.url()
            ),
        };
        if !cx.wait(store.exists(&path))? {
            return Err(lacks("there is no such file".to_owned()));
        }
        serde_json::from_slice(&cx.wait(store.get(&path))?).map_err(|e| lacks(e.to_string()))
    }

    /// The candidates of some users by the logits of those who have any.
    pub(super) fn ranked(&self, asked: &[(&User, &CandidateRow)], logits: &[Vec<f32>]) -> Vec<RankingRow> {
        let mut logits = logits.chunks(self.permutations);
        let mut next = |row: &CandidateRow| if row.items.is_empty() { None } else { logits.next() };
        asked.iter().map(|(_, row)| self.row(row, next(row).unwrap_or_default())).collect()
    }

    pub(super) fn row(&self, row: &CandidateRow, orders: &[Vec<f32>]) -> RankingRow {
        let logits = averaged(orders, row.items.len());
        match &self.calibration {
            Some(fitted) if self.blends => {
                let temperature = if self.calibrates { fitted.blend_temperature as f32 } else { 1.0 };
                ordered(row, &fitted.blend(&logits, &row.scores[..logits.len()]), temperature)
            }
            Some(fitted) => ordered(row, &logits, fitted.temperature as f32),
            None => ordered(row, &logits, 1.0),
        }
    }
}

/// The mean of an item's logits over all orders, in the order of the row.
pub(super) fn averaged(orders: &[Vec<f32>], candidates: usize) -> Vec<f32> {
    let Some(labels) = orders.first().map(Vec::len) else { return Vec::new() };
    let shown = candidates.min(labels);
    let of = |item: usize| {
        let at = |(order, logits): (usize, &Vec<f32>)| {
            logits[(item + shown - turn(order, orders.len(), candidates) % shown.max(1)) % shown.max(1)]
        };
        orders.iter().enumerate().map(at).sum::<f32>() / orders.len() as f32
    };
    (0..shown).map(of).collect()
}

/// By how many places an order is turned: every candidate comes to places that are spread evenly.
pub(super) fn turn(order: usize, permutations: usize, candidates: usize) -> usize {
    order * candidates / permutations
}

/// Candidates by score, best first; equal ones stay in the retriever's order. Probabilities are those under a temperature.
fn ordered(row: &CandidateRow, scores: &[f32], temperature: f32) -> RankingRow {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let likelihood = |score: f32| ((score - top) / temperature).exp();
    let sum: f32 = scores.iter().map(|score| likelihood(*score)).sum();
    RankingRow {
        user_id: row.user_id.clone(),
        split: row.split,
        items: order.iter().map(|i| row.items[*i].clone()).collect(),
        scores: order.iter().map(|i| scores[*i]).collect(),
        probabilities: order.iter().map(|i| likelihood(scores[*i]) / sum).collect(),
        retriever_ranks: order.iter().map(|i| *i as u32 + 1).collect(),
    }
}
