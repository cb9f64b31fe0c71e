//! What a worker has in hand: one lease at work, and what was said of it. Both outlive a session.

use std::sync::Arc;
use std::time::Duration;

use data::store::Store;
use proto::{Claim, FromWorker, Generation, GenerationId, Grant, LeaseId, Progress};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, info, info_span, warn};

use crate::context::{Context, Means, Signs};
use crate::device::DeviceThread;
use crate::doubt::Doubt;
use crate::gang::Seat;
use crate::hand::Hand;
use crate::session::{End, say};
use crate::{Class, tasks};

/// Where words go, and how often a sign of life does.
type Line<'a> = (&'a mpsc::Sender<FromWorker>, Duration);

/// A lease at work.
struct Work {
    hand: Hand,
    signs: Signs,
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
        let seat = Arc::new(Seat::new(means.step_patience));
        let signs = Signs { stop: CancellationToken::new(), doubt: Doubt::default(), seat };
        let hand = Hand::new(&grant);
        let span = info_span!("lease", job_id = %grant.job, stage = grant.stage, lease = %grant.lease, attempt = Empty);
        let work = work(grant, means, self.device.clone(), self.to_desk.clone(), signs.clone());
        let task = tokio::spawn(work.instrument(span));
        self.work = Some(Work { hand, signs, task });
    }

    /// A gang trains on in a generation that this worker belongs to.
    pub(crate) fn call(&mut self, generation: Generation) {
        if let Some(work) = self.work.as_mut().filter(|work| work.hand.lease() == generation.lease) {
            work.hand.enter(generation.number);
            work.signs.seat.call(generation);
        }
    }

    /// A generation is to end in order.
    pub(crate) fn regroup(&self, lease: LeaseId, generation: GenerationId) {
        if let Some(work) = self.work.as_ref().filter(|work| work.hand.lease() == lease) {
            work.signs.seat.regroup(generation);
        }
    }

    /// A generation has lost a member.
    pub(crate) fn abort(&self, lease: LeaseId, generation: GenerationId, reason: String) {
        if let Some(work) = self.work.as_ref().filter(|work| work.hand.lease() == lease) {
            info!(%lease, %generation, reason, "generation aborted");
            work.signs.seat.abort(generation, reason);
        }
    }

    /// The lease whose step has said nothing for too long, if there is one, and the words for it.
    pub(crate) fn hangs(&self) -> Option<(LeaseId, String)> {
        let work = self.work.as_ref().filter(|work| !work.hand.is_over())?;
        Some((work.hand.lease(), work.signs.seat.hangs()?))
    }

    /// The next word of the work, remembered before it goes out.
    pub(crate) async fn word(&mut self) -> FromWorker {
        loop {
            // The sender's other end is held here: the channel does not close.
            let Some(word) = self.words.recv().await else { std::future::pending().await };
            if self.work.as_mut().is_some_and(|work| work.hand.remember(&word)) {
                return word;
            }
        }
    }

    /// Says that the worker lives, and what its work waits for, if it does.
    pub(crate) fn sign_of_life(&self, store: &Store) -> FromWorker {
        let trouble = store.trouble();
        match self.work.as_ref().map(|work| &work.hand).filter(|hand| !hand.is_over()).zip(trouble) {
            Some((hand, trouble)) => {
                let note = format!("waiting for the store: {trouble}");
                FromWorker::Progress { lease: hand.lease(), progress: Progress { note, ..hand.progress().clone() } }
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
        self.work.as_ref().map(|work| work.hand.claim())
    }

    /// Says again what a coordinator may have missed, unless the session ends meanwhile.
    pub(crate) async fn repeat(&mut self, to: &mpsc::Sender<FromWorker>, stop: &CancellationToken) -> Option<End> {
        for word in self.work.as_ref()?.hand.repeat() {
            if let Some(end) = say(to, word, stop).await {
                return Some(end);
            }
        }
        None
    }

    /// The coordinator may take what is in hand for lost, and give it to others.
    pub(crate) fn cut_off(&self) {
        if let Some(work) = &self.work {
            work.signs.doubt.raise();
        }
    }

    /// A lease is over: its work ends at the next chance.
    pub(crate) fn revoke(&self, lease: LeaseId, reason: &str) {
        if let Some(work) = self.work.as_ref().filter(|work| work.hand.lease() == lease) {
            info!(%lease, reason, "lease revoked");
            work.signs.stop.cancel();
        }
    }

    /// Stops what is at work and waits for it, with signs of life if somebody listens: a checkpoint may still be written.
    pub(crate) async fn clear(&mut self, line: Option<Line<'_>>) {
        let Some(work) = self.work.as_ref() else { return };
        work.signs.stop.cancel();
        let pause = line.map_or(Duration::from_secs(1), |(_, heartbeat)| heartbeat);
        let mut beat = tokio::time::interval(pause);
        while self.work.as_ref().is_some_and(|work| !work.hand.is_over() && !work.task.is_finished()) {
            if self.hangs().is_some() {
                break; // it cannot be waited for
            }
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
        // What it said last.
        while let Ok(word) = self.words.try_recv() {
            let ours = self.work.as_mut().is_some_and(|work| work.hand.remember(&word));
            if let Some((to, _)) = line.filter(|_| ours) {
                let _ = to.try_send(word);
            }
        }
        self.work = None;
    }
}

/// Works on a lease and says how it ended.
async fn work(grant: Grant, means: Means, device: DeviceThread, to_desk: mpsc::Sender<FromWorker>, signs: Signs) {
    let (lease, stop) = (grant.lease, signs.stop.clone());
    let outcome = match Context::open(&grant, means, signs, to_desk.clone()).await {
        Ok(context) => {
            let shards = grant.shards.clone();
            device.run(move |device, kept| tasks::run(context, &shards, device, kept)).await
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
