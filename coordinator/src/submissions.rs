//! When jobs were asked for and how they ended: a sequence of pairs that is only ever added to.
//!
//! ```text
//! _control/v1/jobs/<job>/submitted/00001.json   {"term", "order"}
//! _control/v1/jobs/<job>/ended/00001.json       {"state", "reason", "failure"}
//! ```
//!
//! A job is active while its last submission has no end. That is what a coordinator takes up when it begins to lead.

use data::store::Store;
use proto::{FailureClass, JobState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::PREFIX;
use crate::{Error, Result};

/// Which submission of a job it is, from 1.
pub type Round = u32;

/// Who took a submission, and after how many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Submitted {
    /// The term of the coordinator.
    pub term: u64,
    /// Counts the submissions of that term.
    pub order: u64,
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

/// Notes that a job is wanted; one that is wanted already stays so. Returns the round.
///
/// # Errors
/// Those of the store.
pub async fn begin(store: &Store, job: &str, submitted: Submitted) -> Result<Round> {
    loop {
        let (begun, ended) = rounds(store, job).await?;
        if begun > ended {
            return Ok(begun);
        }
        let round = begun + 1;
        let text = serde_json::json!(submitted).to_string();
        // Where another coordinator was first, its submission is as good as ours.
        store.create(&path(job, "submitted", round), text.into()).await?;
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
/// Those of the store; [`Error::Record`].
pub async fn active(store: &Store, jobs: Vec<String>) -> Result<Vec<(String, Round)>> {
    let mut active = Vec::new();
    for job in jobs {
        let (begun, ended) = rounds(store, &job).await?;
        if begun > ended {
            match read::<Submitted>(store, &path(&job, "submitted", begun)).await {
                Ok(submitted) => active.push((submitted, job, begun)),
                // Its place in the queue is lost, and nothing else.
                Err(Error::Record { path, reason }) => {
                    tracing::warn!(path, reason, "cannot tell when a job was submitted");
                    active.push((Submitted { term: u64::MAX, order: 0 }, job, begun));
                }
                Err(e) => return Err(e),
            }
        }
    }
    active.sort();
    Ok(active.into_iter().map(|(_, job, round)| (job, round)).collect())
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
