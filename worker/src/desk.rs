//! What a worker has in hand: one lease at work, and what was said of it. Both outlive a session.

use std::time::Duration;

use data::store::Store;
use proto::{Claim, Committed, FromWorker, Grant, LeaseId, Progress};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::context::{Context, Means};
use crate::device::DeviceThread;
use crate::{Class, tasks};

/// Where words go, and how often a sign of life does.
type Line<'a> = (&'a mpsc::Sender<FromWorker>, Duration);

/// A lease and what was said of it so far.
struct Work {
    lease: LeaseId,
    stage: String,
    digest: String,
    /// What is not committed yet, in the order of work.
    shards: Vec<u32>,
    committed: Vec<Committed>,
    progress: Progress,
    /// The last word, once there is one.
    end: Option<FromWorker>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A worker's desk.
pub(crate) struct Desk {
    device: DeviceThread,
    work: Option<Work>,
    words: mpsc::Receiver<FromWorker>,
    to_desk: mpsc::Sender<FromWorker>,
}

impl Desk {
    /// Nothing in hand.
    pub(crate) fn new(device: DeviceThread) -> Self {
        let (to_desk, words) = mpsc::channel(256);
        Self { device, work: None, words, to_desk }
    }

    /// Begins to work on a lease.
    pub(crate) fn start(&mut self, grant: Grant, means: Means) {
        let stop = CancellationToken::new();
        let (lease, stage, digest) = (grant.lease, grant.stage.clone(), grant.digest.clone());
        let shards = grant.shards.clone();
        let task = tokio::spawn(work(grant, means, self.device.clone(), self.to_desk.clone(), stop.clone()));
        let (committed, progress) = (Vec::new(), Progress::default());
        self.work = Some(Work { lease, stage, digest, shards, committed, progress, end: None, stop, task });
    }

    /// The next word of the work, remembered before it goes out.
    pub(crate) async fn word(&mut self) -> FromWorker {
        loop {
            // The sender's other end is held here: the channel does not close.
            let Some(word) = self.words.recv().await else { std::future::pending().await };
            if self.remember(&word) {
                return word;
            }
        }
    }

    /// Says that the worker lives, and what its work waits for, if it does.
    pub(crate) fn sign_of_life(&self, store: &Store) -> FromWorker {
        let trouble = store.trouble();
        match self.work.as_ref().filter(|work| work.end.is_none()).zip(trouble) {
            Some((work, trouble)) => {
                let note = format!("waiting for the store: {trouble}");
                FromWorker::Progress { lease: work.lease, progress: Progress { note, ..work.progress.clone() } }
            }
            None => FromWorker::Heartbeat,
        }
    }

    /// Waits and takes down what the work says, while nobody listens.
    pub(crate) async fn keep(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, async {
            loop {
                let _ = self.word().await;
            }
        })
        .await;
    }

    /// What is in hand, for a coordinator that may not know it.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let work = self.work.as_ref()?;
        let (stage, digest, shards) = (work.stage.clone(), work.digest.clone(), work.shards.clone());
        Some(Claim { lease: work.lease, stage, digest, shards })
    }

    /// Says again what a coordinator may have missed.
    pub(crate) async fn repeat(&mut self, to: &mpsc::Sender<FromWorker>) {
        let Some(work) = &self.work else { return };
        for committed in &work.committed {
            let _ = to.send(FromWorker::Committed { lease: work.lease, committed: committed.clone() }).await;
        }
        if let Some(end) = &work.end {
            let _ = to.send(end.clone()).await;
        }
    }

    /// A lease is over: its work ends at the next chance.
    pub(crate) fn revoke(&self, lease: LeaseId, reason: &str) {
        if let Some(work) = self.work.as_ref().filter(|w| w.lease == lease) {
            info!(%lease, reason, "lease revoked");
            work.stop.cancel();
        }
    }

    /// Stops what is at work and waits for it, with signs of life if somebody listens: a checkpoint may still be written.
    pub(crate) async fn clear(&mut self, line: Option<Line<'_>>) {
        let Some(work) = self.work.as_ref() else { return };
        work.stop.cancel();
        let pause = line.map_or(Duration::from_secs(1), |(_, heartbeat)| heartbeat);
        let mut beat = tokio::time::interval(pause);
        while self.work.as_ref().is_some_and(|work| work.end.is_none() && !work.task.is_finished()) {
            let word = tokio::select! {
                word = self.word() => word,
                _ = beat.tick() => FromWorker::Heartbeat,
            };
            // A full or closed channel must not keep the work from being waited for.
            if let Some((to, _)) = line {
                let patience = tokio::time::timeout(pause, to.send(word));
                let _ = patience.await;
            }
        }
        self.work = None;
    }

    /// Takes down what the work says; words of work that is long over are dropped.
    fn remember(&mut self, word: &FromWorker) -> bool {
        let Some(work) = self.work.as_mut() else { return false };
        match word {
            FromWorker::Committed { lease, committed } if *lease == work.lease => {
                work.shards.retain(|shard| *shard != committed.shard);
                work.committed.push(committed.clone());
            }
            FromWorker::Progress { lease, progress } if *lease == work.lease => work.progress = progress.clone(),
            FromWorker::Ended { lease } | FromWorker::Failed { lease, .. } if *lease == work.lease => {
                work.end = Some(word.clone());
            }
            _ => return false,
        }
        true
    }
}

/// Works on a lease and says how it ended.
async fn work(
    grant: Grant,
    means: Means,
    device: DeviceThread,
    to_desk: mpsc::Sender<FromWorker>,
    stop: CancellationToken,
) {
    let lease = grant.lease;
    let outcome = match Context::open(&grant, means, stop.clone(), to_desk.clone()).await {
        Ok(context) => {
            let shards = grant.shards.clone();
            device.run(move |device| tasks::run(context, &shards, device)).await
        }
        Err(e) => Err(e),
    };
    let word = match outcome {
        Ok(()) => FromWorker::Ended { lease },
        Err(e) => {
            // What failed because nobody waited for it any more did not fail.
            let class = if stop.is_cancelled() && e.class() == Class::Retry { Class::Stopped } else { e.class() };
            match class {
                Class::Stopped => info!(%lease, stage = grant.stage, "lease handed back"),
                // The coordinator tells the user.
                Class::Fatal => info!(%lease, stage = grant.stage, error = %e, "lease failed for good"),
                _ => warn!(%lease, stage = grant.stage, error = %e, "lease failed"),
            }
            FromWorker::Failed { lease, class: class.into(), reason: e.to_string() }
        }
    };
    let _ = to_desk.send(word).await;
}
