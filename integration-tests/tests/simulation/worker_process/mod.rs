//! A worker: the session and the desk as they are, over the simulated network; the work is waiting, and a real commit.

mod task;
mod training;

use std::time::Duration;

use data::store::Store;
use proto::{Claim, FromWorker, Grant, LeaseId, PROTOCOL, Progress, REGISTRATION, Register, ToWorker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use worker::hand::Hand;

use crate::executor::Process;
use crate::network::WorkerEnd;
use crate::world::{HEARTBEAT, World};
use task::Task;
use training::Standing;

const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What outlives a session.
struct Worker {
    world: World,
    process: Process,
    place: u64,
    term: u64,
    store: Store,
    work: Option<Work>,
    words: UnboundedReceiver<FromWorker>,
    to_desk: UnboundedSender<FromWorker>,
}

struct Work {
    hand: Hand,
    stop: CancellationToken,
    /// Where it stands in its gang, if it trains.
    standing: Standing,
    /// What its gang is told.
    to_member: UnboundedSender<ToWorker>,
}

impl Work {
    fn claim(&self) -> Claim {
        Claim { generation: self.standing.generation(), ..self.hand.claim() }
    }
}

enum Ended {
    Over,
    Broken,
}

/// Works until it is told to stop.
pub(crate) async fn work(world: &World, process: Process, place: u64, stop: CancellationToken) {
    let (to_desk, words) = unbounded_channel();
    let (world, store) = (world.clone(), world.store());
    let mut worker = Worker { world, process, place, term: 0, store, work: None, words, to_desk };
    let mut pause = Duration::from_millis(50);
    loop {
        if let Some(Ended::Over) = worker.session(&stop).await {
            return;
        }
        let sleep = worker.world.sim.sleep(pause);
        tokio::select! {
            biased;
            () = stop.cancelled() => return worker.clear(None).await,
            () = worker.keep(sleep) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Worker {
    /// One session; nothing if no coordinator is there.
    async fn session(&mut self, stop: &CancellationToken) -> Option<Ended> {
        let mut end = self.world.connect()?;
        let register = Register {
            protocol: PROTOCOL,
            build: String::new(),
            name: format!("{}", self.process),
            threads: 1,
            device: "cpu".into(),
            term: self.term,
            claims: self.work.iter().map(Work::claim).collect(),
            job: None,
        };
        end.say(FromWorker::Register(register));
        let welcome = tokio::select! {
            biased;
            word = end.hear() => match word? {
                ToWorker::Welcome(welcome) => welcome,
                _ => return None,
            },
            () = self.world.sim.sleep(REGISTRATION) => return None,
        };
        if welcome.term < self.term {
            return None;
        }
        self.term = welcome.term;
        for word in self.work.iter().flat_map(|work| work.hand.repeat()) {
            end.say(word);
        }
        if let Some(ready) = self.work.as_ref().and_then(|work| work.standing.again()) {
            end.say(FromWorker::Ready(ready));
        }
        let ended = self.listen(&mut end, stop).await;
        if let Ended::Over = ended {
            self.clear(Some(&end)).await;
        }
        Some(ended)
    }

    async fn listen(&mut self, end: &mut WorkerEnd, stop: &CancellationToken) -> Ended {
        let mut beat = self.world.sim.sleep(HEARTBEAT);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    end.say(FromWorker::Leaving);
                    return Ended::Over;
                }
                word = end.hear() => match word {
                    None | Some(ToWorker::Refused(_)) => return Ended::Broken,
                    Some(ToWorker::Shutdown(_) | ToWorker::JobEnded { .. }) => return Ended::Over,
                    Some(ToWorker::Welcome(_)) => {}
                    Some(ToWorker::Generation(ref generation)) => self.tell_member(generation.lease, word),
                    Some(ToWorker::Regroup { lease, .. } | ToWorker::Abort { lease, .. }) => {
                        self.tell_member(lease, word);
                    }
                    Some(ToWorker::Revoke { lease, .. }) => {
                        if let Some(work) = self.work.as_ref().filter(|work| work.hand.lease() == lease) {
                            work.stop.cancel();
                        }
                    }
                    Some(ToWorker::Grant(grant)) => {
                        self.clear(Some(end)).await;
                        end.say(FromWorker::Progress { lease: grant.lease, progress: Progress::default() });
                        self.start(grant);
                    }
                },
                word = self.words.recv() => {
                    let Some(word) = word else { return Ended::Broken };
                    if self.is_to_be_said(&word) && !end.say(word) {
                        return Ended::Broken;
                    }
                }
                () = &mut beat => {
                    beat = self.world.sim.sleep(HEARTBEAT);
                    if !end.say(FromWorker::Heartbeat) {
                        return Ended::Broken;
                    }
                }
            }
        }
    }

    /// Passes on what is for the member of a gang whose lease it is.
    fn tell_member(&self, lease: LeaseId, word: Option<ToWorker>) {
        if let Some((work, word)) = self.work.as_ref().filter(|work| work.hand.lease() == lease).zip(word) {
            let _ = work.to_member.send(word);
        }
    }

    /// Takes a word of the work down. Says whether it is to go out: that a member waits is said once in every session.
    fn is_to_be_said(&mut self, word: &FromWorker) -> bool {
        match word {
            FromWorker::Ready(ready) => {
                self.work.as_ref().is_some_and(|work| work.hand.lease() == ready.lease && work.standing.say())
            }
            _ => self.remember(word),
        }
    }

    /// That a member waits is remembered where it stands, or it would be said twice.
    fn remember(&mut self, word: &FromWorker) -> bool {
        let waits = matches!(word, FromWorker::Ready(_));
        !waits && self.work.as_mut().is_some_and(|work| work.hand.remember(word))
    }

    /// Takes down what the work says while nobody listens.
    async fn keep(&mut self, mut pause: crate::executor::Sleep) {
        loop {
            tokio::select! {
                biased;
                () = &mut pause => return,
                Some(word) = self.words.recv() => { self.remember(&word); }
            }
        }
    }

    /// Stops what is at work and waits for it.
    async fn clear(&mut self, end: Option<&WorkerEnd>) {
        let Some(work) = &self.work else { return };
        work.stop.cancel();
        while self.work.as_ref().is_some_and(|work| !work.hand.is_over()) {
            let beat = self.world.sim.sleep(HEARTBEAT);
            let word = tokio::select! {
                biased;
                Some(word) = self.words.recv() => {
                    if !self.is_to_be_said(&word) {
                        continue;
                    }
                    word
                }
                () = beat => FromWorker::Heartbeat,
            };
            if let Some(end) = end {
                end.say(word);
            }
        }
        self.work = None;
    }

    fn start(&mut self, grant: Grant) {
        let (hand, stop) = (Hand::new(&grant), CancellationToken::new());
        let (standing, (to_member, orders)) = (Standing::default(), unbounded_channel());
        let task = Task {
            world: self.world.clone(),
            process: self.process,
            place: self.place,
            store: self.store.clone().until(stop.clone()),
            stop: stop.clone(),
            to_desk: self.to_desk.clone(),
            standing: standing.clone(),
        };
        self.work = Some(Work { hand, stop, standing, to_member });
        self.world.sim.spawn(self.process, task.run(grant, orders));
    }
}
