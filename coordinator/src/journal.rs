//! What happened to a job, for people: written to the store in batches, read by `logs`.
//!
//! ```text
//! _control/v1/jobs/<job>/events/<term>-<batch>.jsonl
//! ```
//!
//! A journal decides nothing. What a coordinator had not written when it was killed is lost, and nothing else is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data::store::Store;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use proto::JobId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::records::PREFIX;
use crate::submissions::now_ms;
use crate::{Error, Result};

/// Lines of one job in memory; more than that are not kept while the store is away.
const MOST: usize = 100_000;
/// Batches that are written at once.
const WRITES: usize = 16;

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
        Self { at_ms: now_ms(), level: level.to_owned(), stage: stage.to_owned(), worker: worker.to_owned(), text }
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

/// Writes batches one after the other: the pieces of a journal come in their order, however slow the store is, and what
/// waits for a store that is away is one task.
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<(Vec<Batch>, oneshot::Sender<()>)>,
    /// Calls of [`Writer::write`] that are not done.
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    /// Begins to wait for batches.
    pub(crate) fn start(store: Store) -> Self {
        let (queue, mut due) = mpsc::unbounded_channel::<(Vec<Batch>, oneshot::Sender<()>)>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        tokio::spawn(async move {
            while let Some((batches, written)) = due.recv().await {
                // They are of different jobs.
                let write = |batch: Batch| batch.write(&store);
                stream::iter(batches).for_each_concurrent(WRITES, write).await;
                left.fetch_sub(1, Ordering::Relaxed);
                let _ = written.send(());
            }
        });
        Self { queue, waiting }
    }

    /// Whether everything is written that was handed over.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Hands batches over. What comes back waits until they are written, as far as they can be.
    pub(crate) fn write(&self, batches: Vec<Batch>) -> impl Future<Output = ()> + Send + use<> {
        let (written, done) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send((batches, written));
        done.map(drop)
    }
}

impl Batch {
    /// Writes the lines; a journal that cannot be written stops nothing.
    async fn write(self, store: &Store) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicBool;

    use tokio::sync::Notify;

    use super::*;
    use crate::fixtures::{Mortal, boxed};

    #[tokio::test]
    async fn pieces_of_a_journal_come_in_their_order() {
        let root = Mortal::default();
        let (store, job) = (root.store("s3://shop"), JobId("shop".to_owned()));
        let (mut journal, writer) = (Journal::new(3), Writer::start(store.clone()));
        let (back, away) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (until, gone) = (back.clone(), away.clone());
        let wait = async move {
            gone.store(true, Ordering::Relaxed);
            until.notified().await;
        };
        root.before(0, boxed(wait));
        let mut note = |text: &str| {
            journal.note(&job, Entry::now("info", "", "", text.to_owned()));
            journal.take(Some(&job))
        };
        let first = writer.write(note("one"));
        while !away.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert!(!writer.is_idle(), "the store is away");
        let second = writer.write(note("two"));
        tokio::task::yield_now().await;
        assert!(read(&store, "shop", None).await.unwrap().0.is_empty(), "the second piece came before the first");
        back.notify_one();
        futures::join!(first, second);
        assert!(writer.is_idle());
        let (lines, _) = read(&store, "shop", None).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let names: Vec<String> = root.log().iter().map(|line| line[line.len() - 12..].to_owned()).collect();
        assert_eq!(names, ["000001.jsonl", "000002.jsonl"]);
    }
}
