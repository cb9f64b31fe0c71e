//! What happened to a job, for people: written to the store in batches, read by `logs`.
//!
//! ```text
//! _control/v1/jobs/<job>/events/<term>-<batch>.jsonl
//! ```
//!
//! A journal decides nothing. What a coordinator had not written when it was killed is lost, and nothing else is.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use data::store::Store;
use proto::JobId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::records::PREFIX;
use crate::{Error, Result};

/// Lines of one job in memory; more than that are not kept while the store is away.
const MOST: usize = 100_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970 by the coordinator's clock: for people, never compared.
    pub at_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The stage with its split, where it is about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// The worker's name, where it is about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// What happened.
    pub text: String,
}

impl Entry {
    /// Something that happened now.
    pub(crate) fn now(level: &str, stage: &str, worker: &str, text: String) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { at_ms, level: level.to_owned(), stage: stage.to_owned(), worker: worker.to_owned(), text }
    }
}

/// Lines that are not in the store yet.
#[derive(Debug)]
pub(crate) struct Journal {
    term: u64,
    batches: BTreeMap<JobId, u32>,
    lines: BTreeMap<JobId, Vec<Entry>>,
}

/// Lines on their way to the store.
pub(crate) struct Batch {
    path: String,
    lines: Vec<Entry>,
}

impl Journal {
    /// The journal of a term.
    pub(crate) fn new(term: u64) -> Self {
        Self { term, batches: BTreeMap::new(), lines: BTreeMap::new() }
    }

    /// Adds a line.
    pub(crate) fn note(&mut self, job: &JobId, entry: Entry) {
        let lines = self.lines.entry(job.clone()).or_default();
        if lines.len() < MOST {
            lines.push(entry);
        }
    }

    /// Takes what is to be written; `only` of one job, or of all.
    pub(crate) fn take(&mut self, only: Option<&JobId>) -> Vec<Batch> {
        let due: Vec<JobId> = self.lines.keys().filter(|job| only.is_none_or(|o| o == *job)).cloned().collect();
        let mut batches = Vec::new();
        for job in due {
            let lines = self.lines.remove(&job).unwrap_or_default();
            let batch = self.batches.entry(job.clone()).or_default();
            *batch += 1;
            batches.push(Batch { path: format!("{PREFIX}/{job}/events/{:020}-{batch:06}.jsonl", self.term), lines });
        }
        batches
    }
}

impl Batch {
    /// Writes the lines; a journal that cannot be written stops nothing.
    pub(crate) async fn write(self, store: &Store) {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::json!(line).to_string());
            text.push('\n');
        }
        if let Err(e) = store.create(&self.path, text.into()).await {
            warn!(error = %e, lines = self.lines.len(), "cannot write the journal of a job");
        }
    }
}

/// The journal of a job, or what came after an object of it; the name of the last object goes with it.
///
/// # Errors
/// Those of the store; [`Error::Record`] if a line cannot be understood.
pub async fn read(store: &Store, job: &str, after: Option<&str>) -> Result<(Vec<Entry>, Option<String>)> {
    let mut last = after.map(str::to_owned);
    let mut lines = Vec::new();
    for object in store.list(&format!("{PREFIX}/{job}/events")).await? {
        if after.is_some_and(|after| object.path.as_str() <= after) {
            continue;
        }
        let bytes = store.get(&object.path).await?;
        for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let damaged = |e: serde_json::Error| Error::Record { path: object.path.clone(), reason: e.to_string() };
            lines.push(serde_json::from_slice(line).map_err(damaged)?);
        }
        last = Some(object.path);
    }
    Ok((lines, last))
}
