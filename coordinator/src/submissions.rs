//! When jobs were asked for and how they ended: a sequence of pairs that is only ever added to.
//!
//! ```text
//! _control/v1/jobs/<job>/submitted/00001.json   {"term", "order", "at_ms", "job", "complete"}
//! _control/v1/jobs/<job>/ended/00001.json       {"state", "reason", "failure"}
//! ```
//!
//! A job is active while its last submission has no end. That is what a coordinator takes up when it begins to lead, in
//! the spelling of that submission: keys that change no result, such as `limits`, may be others than the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data::artifact::Digest;
use data::store::{Created, Store};
use futures::stream::{self, StreamExt, TryStreamExt};
use proto::{FailureClass, JobState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::{self, PREFIX};
use crate::{Error, Result};

/// Records that are read at once.
pub(crate) const READS: usize = 16;

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
    /// The artifacts that were complete when the job was submitted first, or first after that was noted; unknown in records of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<BTreeSet<Digest>>,
}

impl Submitted {
    /// A submission of this moment.
    #[must_use]
    pub fn now(term: u64, order: u64, job: String, complete: BTreeSet<Digest>) -> Self {
        Self { term, order, at_ms: now_ms(), job, complete: Some(complete) }
    }

    /// A submission of this moment that nobody waits for.
    #[must_use]
    pub fn nobodys() -> Self {
        Self { at_ms: now_ms(), ..Self::default() }
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

/// Milliseconds since 1970: for people.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A round of a job, mostly one that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its id.
    pub job: String,
    /// The round.
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
        let state = if state.ended() { state } else { JobState::Failed };
        Self {
            state: state.name().to_owned(),
            reason: reason.to_owned(),
            may_pass: failure == Some(FailureClass::Retry),
        }
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
            // It has what was known when the job was submitted first, or since that was noted.
            let before = record_of(store, job, begun).await?;
            record.complete = before.complete.or(record.complete);
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

/// Whether a round has ended.
///
/// # Errors
/// Those of the store.
pub async fn has_ended(store: &Store, job: &str, round: Round) -> Result<bool> {
    Ok(store.exists(&path(job, "ended", round)).await?)
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

/// The active jobs of some, in the order in which they were submitted. One listing, however many jobs there have been.
///
/// # Errors
/// Those of the store.
pub async fn active(store: &Store, jobs: Vec<String>) -> Result<Vec<Active>> {
    let rounds = all_rounds(store).await?;
    let last = |job: String| rounds.get(&job).filter(|(begun, ended)| begun > ended).map(|(begun, _)| (job, *begun));
    read_in_order(store, jobs.into_iter().filter_map(last).collect()).await
}

/// Jobs in the order in which they were submitted last, those first of which no coordinator has kept that.
///
/// # Errors
/// Those of the store.
pub async fn in_order(store: &Store, jobs: Vec<String>) -> Result<Vec<String>> {
    let rounds = all_rounds(store).await?;
    let begun = |job: &String| rounds.get(job).map_or(0, |(begun, _)| *begun);
    let (mut unknown, submitted): (Vec<String>, Vec<String>) = jobs.into_iter().partition(|job| begun(job) == 0);
    let due = submitted.into_iter().map(|job| (begun(&job), job)).map(|(round, job)| (job, round)).collect();
    unknown.extend(read_in_order(store, due).await?.into_iter().map(|known| known.job));
    Ok(unknown)
}

/// The records of some rounds, in the order of the submissions.
async fn read_in_order(store: &Store, due: Vec<(String, Round)>) -> Result<Vec<Active>> {
    let read = |(job, round): (String, Round)| async move {
        let submitted = record_of(store, &job, round).await?;
        Ok::<_, Error>(Active { job, round, submitted })
    };
    let mut rounds: Vec<Active> = stream::iter(due).map(read).buffered(READS).try_collect().await?;
    rounds.sort_by(|a, b| (&a.submitted, &a.job).cmp(&(&b.submitted, &b.job)));
    Ok(rounds)
}

/// The numbers of the last submission and of the last end of every job.
async fn all_rounds(store: &Store) -> Result<BTreeMap<String, (Round, Round)>> {
    let mut rounds: BTreeMap<String, (Round, Round)> = BTreeMap::new();
    for entry in store.list(PREFIX).await? {
        let Some((job, file)) = records::job_and_file(&entry.path) else { continue };
        let Some((kind, round)) = file.split_once('/').zip(round_of(file)).map(|((kind, _), round)| (kind, round))
        else {
            continue;
        };
        let (begun, ended) = rounds.entry(job.to_owned()).or_default();
        match kind {
            "submitted" => *begun = round.max(*begun),
            "ended" => *ended = round.max(*ended),
            _ => {}
        }
    }
    Ok(rounds)
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
    Ok(entries.iter().filter_map(|e| round_of(&e.path)).max().unwrap_or(0))
}

fn round_of(path: &str) -> Option<Round> {
    path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}

async fn read<T: DeserializeOwned>(store: &Store, path: &str) -> Result<T> {
    let bytes = store.get(path).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Record { path: path.to_owned(), reason: e.to_string() })
}

fn path(job: &str, kind: &str, round: Round) -> String {
    format!("{PREFIX}/{job}/{kind}/{round:05}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixtures::Mortal;

    #[tokio::test]
    async fn active_jobs_are_found_in_one_listing_in_the_order_of_their_submission() {
        let root = Mortal::default();
        let store = root.store("s3://shop");
        let jobs: Vec<String> = (0..20).map(|n| format!("shop-{n:02}")).collect();
        for (n, job) in jobs.iter().enumerate() {
            let submitted = Submitted { term: 1, order: 100 - n as u64, ..Submitted::default() };
            let (round, _) = begin(&store, job, &submitted).await.unwrap();
            if n % 4 != 0 {
                end(&store, job, round, &Ended::of(JobState::Succeeded, "", None)).await.unwrap();
            }
            if n % 4 == 1 {
                assert_eq!(begin(&store, job, &submitted).await.unwrap().0, 2, "it is wanted once more");
            }
        }
        let before = root.listings();
        let active = active(&store, jobs).await.unwrap();
        assert_eq!(root.listings() - before, 1);
        let mut ordered = vec!["shop-00".to_owned(), "run".to_owned(), "shop-19".to_owned(), "shop-07".to_owned()];
        ordered = in_order(&store, ordered).await.unwrap();
        assert_eq!(ordered, ["run", "shop-19", "shop-07", "shop-00"]);
        let found: Vec<(&str, Round)> = active.iter().map(|a| (a.job.as_str(), a.round)).collect();
        assert_eq!(found[..3], [("shop-17", 2), ("shop-16", 1), ("shop-13", 2)]);
        assert_eq!(found.len(), 10);
    }

    #[tokio::test]
    async fn a_later_round_knows_what_was_done_before_the_first() {
        let store = Mortal::default().store("s3://shop");
        let done = |text: &str| BTreeSet::from([Digest::of_bytes(text.as_bytes())]);
        let (round, _) = begin(&store, "shop", &Submitted::now(1, 1, "a".into(), done("one"))).await.unwrap();
        end(&store, "shop", round, &Ended::of(JobState::Cancelled, "", None)).await.unwrap();
        let (_, second) = begin(&store, "shop", &Submitted::now(2, 1, "b".into(), done("two"))).await.unwrap();
        assert_eq!((second.complete, second.job.as_str()), (Some(done("one")), "b"));
        let (_, last) = last_round(&store, "shop").await.unwrap().unwrap();
        assert!(last.job == "b" && last.age() < Duration::from_secs(60), "{last:?}");
    }
}
