//! The choice among the trials of a sweep: an artifact of the trained stage that is made from the trials' artifacts.
//!
//! Its inputs are those of its trials, and the trials themselves in the roles `trial:1`, `trial:2`, …; its configuration is
//! `{"sweep": [settings of trial 1, settings of trial 2, …]}`. Its files are those of the trial that was chosen, and the note
//! [`CHOICE`] of its done record says which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ArtifactId, Digest, Spec, done_record};
use crate::job::Stage;
use crate::store::Store;
use crate::{Error, Result};

/// The note of a done record that says what was chosen.
pub const CHOICE: &str = "sweep";

/// Settings of a trial: key with its sections → value.
pub type Settings = BTreeMap<String, Value>;

/// What a choice says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The trial that was chosen, from 1.
    pub chosen: usize,
    /// Its settings.
    pub settings: Settings,
    /// What was compared, `best_recall@10`: a note of the trials' done records.
    pub metric: String,
    /// Every trial in the order of the grid.
    pub trials: Vec<Judged>,
}

/// A trial as it was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its settings.
    pub settings: Settings,
    /// Its best figure on validation, if it has one.
    pub figure: Option<f64>,
    /// Its artifact.
    pub digest: Digest,
}

/// The role of a trial, counted from 1.
#[must_use]
pub fn trial_role(place: usize) -> String {
    format!("trial:{place}")
}

/// The configuration of a choice.
#[must_use]
pub fn config(trials: &[Settings]) -> Value {
    json!({ CHOICE: trials })
}

/// The trials of a choice with their settings, in the order of the grid; nothing where a spec is of no choice.
#[must_use]
pub fn trials_of(spec: &Spec) -> Option<Vec<(ArtifactId, Settings)>> {
    let settings: Vec<Settings> = Vec::deserialize(spec.config.get(CHOICE)?).ok()?;
    let trial = |(place, settings)| {
        let digest = spec.inputs.get(&trial_role(place + 1))?.clone();
        Some((ArtifactId { stage: spec.stage, digest }, settings))
    };
    settings.into_iter().enumerate().map(trial).collect()
}

/// The note of a trained stage that trials are compared by.
#[must_use]
pub fn metric(stage: Stage) -> &'static str {
    if stage == Stage::TrainRanker { "best_ndcg@10" } else { "best_recall@10" }
}

/// What was chosen, where an artifact is a choice that has been made.
///
/// # Errors
/// [`Error::Control`] if the note cannot be understood; the store's own failures.
pub async fn choice(store: &Store, id: &ArtifactId) -> Result<Option<Choice>> {
    let Some(done) = done_record(store, id, 0).await? else { return Ok(None) };
    let Some(note) = done.notes.get(CHOICE) else { return Ok(None) };
    let wrong = |e: serde_json::Error| Error::Control { object: id.control("done/00000.json"), reason: e.to_string() };
    Choice::deserialize(note).map(Some).map_err(wrong)
}
