//! When jobs were asked for and how they ended: a sequence of pairs that is only ever added to.
//!
//! ```text
//! _control/v1/jobs/<job>/submitted/00001.json   {"term", "order", "at_ms", "job", "complete"}
//! _control/v1/jobs/<job>/ended/00001.json       {"state", "reason", "failure"}
//! ```
//!
//! A job is active while its last submission has no end. That is what a coordinator takes up when it begins to lead, in
//! the spelling of that submission: keys that change no result, such as `limits`, may be others than the first time.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data::artifact::Digest;
use data::store::{Created, Store};
use proto::{FailureClass, JobState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::PREFIX;
use crate::{Error, Result};

/// Which submission of a job it is, from 1.
pub type Round = u32;

/// Who took a submission, after how many others, and what it asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Submitted {
    /// The term of the coordinator.
    pub term: u64,
    /// Counts the submissions of that term.
    pub order: u64,
    /// Milliseconds since 1970 by the coordinator's clock: for people, never compared.
    #[serde(default)]
    pub at_ms: u64,
    /// The job file; empty in records of earlier versions, where the first spelling counts.
    #[serde(default)]
    pub job: String,
    /// The artifacts that were complete when the job was submitted first; unknown in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<BTreeSet<Digest>>,
}

impl Submitted {
    /// A submission of this moment.
    #[must_use]
    pub fn now(term: u64, order: u64, job: String, complete: BTreeSet<Digest>) -> Self {
        Self { term, order, at_ms: now_ms(), job, complete: Some(complete) }
    }

    /// How long ago it was, as far as two clocks agree: for people.
    #[must_use]
    pub fn age(&self) -> Duration {
        match self.at_ms {
            0 => Duration::ZERO, // the record of an earlier version
            at_ms => Duration::from_millis(now_ms().saturating_sub(at_ms)),
        }
    }

    /// Whether two records are of the same call.
    #[must_use]
    pub fn is_same_call(&self, other: &Self) -> bool {
        (self.term, self.order) == (other.term, other.order)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A job that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its id.
    pub job: String,
    /// The round that has no end.
    pub round: Round,
    /// How that was submitted.
    pub submitted: Submitted,
}

/// How a submission ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Succeeded, failed or cancelled.
    pub state: String,
    /// Why, where it did not succeed.
    #[serde(default)]
    pub reason: String,
    /// Whether the same job may succeed later, where it failed.
    #[serde(default)]
    pub may_pass: bool,
}

impl Ended {
    /// What a status says of a job that has ended.
    #[must_use]
    pub fn of(state: JobState, reason: &str, failure: Option<FailureClass>) -> Self {
        let state = match state {
            JobState::Succeeded => "succeeded",
            JobState::Cancelled => "cancelled",
            JobState::Failed | JobState::Running => "failed",
        };
        Self { state: state.to_owned(), reason: reason.to_owned(), may_pass: failure == Some(FailureClass::Retry) }
    }
}

/// Notes that a job is wanted; one that is wanted already stays so, as it was submitted. Returns the round and its record.
///
/// # Errors
/// Those of the store.
pub async fn begin(store: &Store, job: &str, submitted: &Submitted) -> Result<(Round, Submitted)> {
    let mut record = submitted.clone();
    loop {
        let (begun, ended) = rounds(store, job).await?;
        if begun > ended {
            return Ok((begun, record_of(store, job, begun).await?));
        }
        if begun > 0 {
            let first = record_of(store, job, 1).await?;
            record.complete = first.complete.or(record.complete);
        }
        let round = begun + 1;
        let text = serde_json::json!(record).to_string();
        // Where another submission was first, it is as good as ours.
        if store.create(&path(job, "submitted", round), text.into()).await? == Created::New {
            return Ok((round, record));
        }
    }
}

/// The last round of a job and its record, if it was ever submitted to a coordinator that keeps its jobs.
///
/// # Errors
/// Those of the store.
pub async fn last_round(store: &Store, job: &str) -> Result<Option<(Round, Submitted)>> {
    match last(store, job, "submitted").await? {
        0 => Ok(None),
        round => Ok(Some((round, record_of(store, job, round).await?))),
    }
}

/// Notes how a round ended. The first word counts.
///
/// # Errors
/// Those of the store.
pub async fn end(store: &Store, job: &str, round: Round, ended: &Ended) -> Result<()> {
    let text = serde_json::json!(ended).to_string();
    store.create(&path(job, "ended", round), text.into()).await?;
    Ok(())
}

/// Whether somebody waits for a job, as far as the store knows.
///
/// # Errors
/// Those of the store.
pub async fn is_active(store: &Store, job: &str) -> Result<bool> {
    let (begun, ended) = rounds(store, job).await?;
    Ok(begun > ended)
}

/// How the last round of a job ended; nothing while it is active or if it was never submitted to a coordinator that
/// keeps its jobs.
///
/// # Errors
/// Those of the store; [`Error::Record`].
pub async fn last_end(store: &Store, job: &str) -> Result<Option<Ended>> {
    let (begun, ended) = rounds(store, job).await?;
    if begun == 0 || begun > ended { Ok(None) } else { read(store, &path(job, "ended", ended)).await.map(Some) }
}

/// The active jobs of some, in the order in which they were submitted.
///
/// # Errors
/// Those of the store.
pub async fn active(store: &Store, jobs: Vec<String>) -> Result<Vec<Active>> {
    let mut active = Vec::new();
    for job in jobs {
        let (begun, ended) = rounds(store, &job).await?;
        if begun > ended {
            let submitted = record_of(store, &job, begun).await?;
            active.push(Active { job, round: begun, submitted });
        }
    }
    active.sort_by(|a, b| (&a.submitted, &a.job).cmp(&(&b.submitted, &b.job)));
    Ok(active)
}

/// The record of a round. Of one that cannot be read its place in the queue is lost and its spelling, and nothing else.
async fn record_of(store: &Store, job: &str, round: Round) -> Result<Submitted> {
    match read::<Submitted>(store, &path(job, "submitted", round)).await {
        Err(Error::Record { path, reason }) => {
            tracing::warn!(path, reason, "cannot tell how a job was submitted");
            Ok(Submitted { term: u64::MAX, ..Submitted::default() })
        }
        read => read,
    }
}

/// The number of the last submission and of the last end.
async fn rounds(store: &Store, job: &str) -> Result<(Round, Round)> {
    Ok((last(store, job, "submitted").await?, last(store, job, "ended").await?))
}

async fn last(store: &Store, job: &str, kind: &str) -> Result<Round> {
    let entries = store.list(&format!("{PREFIX}/{job}/{kind}")).await?;
    let round = |path: &str| path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    Ok(entries.iter().filter_map(|e| round(&e.path)).max().unwrap_or(0))
}

async fn read<T: DeserializeOwned>(store: &Store, path: &str) -> Result<T> {
    let bytes = store.get(path).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Record { path: path.to_owned(), reason: e.to_string() })
}

fn path(job: &str, kind: &str, round: Round) -> String {
    format!("{PREFIX}/{job}/{kind}/{round:05}.json")
}
