//! What is made of a ranker's logits: a blend, probabilities, an order.

use data::job::Blend;
use data::tables::{CandidateRow, RankingRow};

use super::{join, source};
use crate::calibration::{self, Calibration};
use crate::context::Context;
use crate::{Error, Result};

/// What is made of the ranker's logits.
pub(super) struct Ordering {
    /// What validation says, where the job wants that.
    pub(super) calibration: Option<Calibration>,
    pub(super) blends: bool,
    pub(super) calibrates: bool,
}

impl Ordering {
    pub(super) fn of(cx: &Context) -> Result<Self> {
        let ranker = &cx.job.ranker;
        let calibration = if ranker.is_fitted() { Some(Self::fitted(cx)?) } else { None };
        if let Some(fitted) = calibration.as_ref().filter(|fitted| fitted.is_at_bound()) {
            let Calibration { temperature, nll, .. } = fitted;
            tracing::warn!(
                temperature,
                ?nll,
                "the ranker is sure of what people do not choose: no temperature makes its probabilities likely. Do not show them; train longer"
            );
        }
        Ok(Self { calibration, blends: ranker.blend == Blend::Fitted, calibrates: ranker.calibrate })
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

    /// The candidates of a user by their logits.
    pub(super) fn row(&self, row: &CandidateRow, logits: &[f32]) -> RankingRow {
        match &self.calibration {
            Some(fitted) if self.blends => {
                let temperature = if self.calibrates { fitted.blend_temperature as f32 } else { 1.0 };
                ordered(row, &fitted.blend(logits, &row.scores), temperature)
            }
            Some(fitted) => ordered(row, logits, fitted.temperature as f32),
            None => ordered(row, logits, 1.0),
        }
    }
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
