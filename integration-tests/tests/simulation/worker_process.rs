//! A worker: the session and the desk as they are, over the simulated network; the work is waiting, and a real commit.

use std::time::Duration;

use data::artifact::{self, ArtifactId, Aside, Attempt, Digest, Done, Plan};
use data::job::Stage;
use data::store::Store;
use proto::{Committed, FailureClass, FromWorker, Grant, PROTOCOL, Progress, REGISTRATION, Register, ToWorker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use worker::hand::Hand;

use crate::catalogue::{SPLIT, compute, footer};
use crate::executor::Process;
use crate::network::WorkerEnd;
use crate::world::{HEARTBEAT, World};

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
            claims: self.work.iter().map(|work| work.hand.claim()).collect(),
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
                    Some(ToWorker::Shutdown(_)) => return Ended::Over,
                    Some(
                        ToWorker::Welcome(_)
                        | ToWorker::Generation(_)
                        | ToWorker::Regroup { .. }
                        | ToWorker::Abort { .. },
                    ) => {}
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
                    if self.remember(&word) && !end.say(word) {
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

    fn remember(&mut self, word: &FromWorker) -> bool {
        self.work.as_mut().is_some_and(|work| work.hand.remember(word))
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
                    if !self.remember(&word) {
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
        let task = Task {
            world: self.world.clone(),
            process: self.process,
            place: self.place,
            store: self.store.clone().until(stop.clone()),
            stop: stop.clone(),
            to_desk: self.to_desk.clone(),
        };
        self.work = Some(Work { hand, stop });
        self.world.sim.spawn(self.process, task.run(grant));
    }
}

/// Work on a lease.
struct Task {
    world: World,
    process: Process,
    place: u64,
    store: Store,
    stop: CancellationToken,
    to_desk: UnboundedSender<FromWorker>,
}

impl Task {
    async fn run(self, grant: Grant) {
        let lease = grant.lease;
        let word = match self.shards(&grant).await {
            Ok(()) => FromWorker::Ended { lease },
            Err(error) => {
                let reason = error.map_or_else(|| "stopped".to_owned(), |e: data::Error| e.to_string());
                self.world.sim.log(|| format!("worker {} {lease}: {reason}", self.process));
                let class = if self.stop.is_cancelled() { FailureClass::Returned } else { FailureClass::Retry };
                FromWorker::Failed { lease, class, reason }
            }
        };
        let _ = self.to_desk.send(word);
    }

    /// Computes and commits the shards of a lease. An error without a cause is a stop.
    async fn shards(&self, grant: &Grant) -> Result<(), Option<data::Error>> {
        let stage: Stage = grant.stage.parse().map_err(|_| None)?;
        let digest = Digest::try_from(grant.digest.clone()).map_err(|_| None)?;
        let id = ArtifactId { stage, digest };
        let Some(plan) = artifact::read_plan(&self.store, &id).await? else {
            self.world.sim.violated(format!("{id} was granted before it was planned"));
            return Err(None);
        };
        for shard in grant.shards.iter().copied() {
            let began = self.world.sim.now();
            self.compute(grant, &id, shard).await?;
            let attempt = format!("{}-{}-{shard}", self.process, grant.lease);
            let done = self.commit(&id, &plan, compute(&id, shard, plan.shards, &attempt)).await?;
            let took = self.world.sim.now() - began;
            let committed = Committed { shard, rows: done.rows, took, rejected: done.rejected };
            let _ = self.to_desk.send(FromWorker::Committed { lease: grant.lease, committed });
        }
        Ok(())
    }

    /// Commits a shard, or completes that it is put aside.
    async fn commit(&self, id: &ArtifactId, plan: &Plan, attempt: Attempt) -> Result<Done, Option<data::Error>> {
        let (shard, footer) = (attempt.shard, footer(id, &attempt.id));
        match artifact::commit_shard(&self.store, id, plan, attempt).await {
            Ok(commit) => Ok(commit.done().clone()),
            Err(data::Error::PutAside { .. }) => {
                self.world.sim.log(|| format!("shard {shard} of {id} was put aside before"));
                match artifact::quarantine(&self.store, id, Some(SPLIT), plan, shard, &footer).await? {
                    Aside::Done(done) => Ok(done),
                    Aside::Computed => {
                        self.world.sim.violated(format!("shard {shard} of {id} has parts of two minds"));
                        Err(None)
                    }
                }
            }
            Err(e) => Err(Some(e)),
        }
    }

    /// A shard that is bad for workers kills them, or lets them hang for so long that they count as dead.
    async fn suffer(&self, id: &ArtifactId, shard: u32) {
        let sim = &self.world.sim;
        if sim.chance(400) {
            sim.log(|| format!("shard {shard} of {id} kills worker {}", self.process));
            self.world.kill(self.process);
            std::future::pending::<()>().await;
        } else if sim.chance(600) {
            sim.log(|| format!("shard {shard} of {id} stuns worker {}", self.process));
            sim.freeze(self.process, sim.between(3500, 9000));
            sim.sleep(Duration::from_millis(1)).await;
        }
    }

    async fn compute(&self, grant: &Grant, id: &ArtifactId, shard: u32) -> Result<(), Option<data::Error>> {
        let sim = &self.world.sim;
        let slow = if self.place == 0 { 4 } else { 1 };
        for step in 1..=3 {
            sim.sleep(sim.between(50, 500 * slow)).await;
            if self.world.poison.as_ref().is_some_and(|(poison, at)| poison == id && *at == shard) {
                self.suffer(id, shard).await;
            }
            if self.stop.is_cancelled() {
                return Err(None);
            }
            let progress = Progress { done: step, total: 3, unit: "steps".into(), note: String::new() };
            let _ = self.to_desk.send(FromWorker::Progress { lease: grant.lease, progress });
        }
        Ok(())
    }
}
