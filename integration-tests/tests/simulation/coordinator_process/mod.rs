//! A coordinator: the real core and the real work on the store, between them the least that carries out what it decides.

mod jobs;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::core::{Action, Core, Event, Joiner};
use coordinator::leadership::Leadership;
use coordinator::submissions::{self, Active};
use data::artifact;
use data::store::Store;
use proto::{FromWorker, Grant, JobId, JobState, Register, ToWorker, Welcome, WorkerId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::executor::Process;
use crate::invariants::Watch;
use crate::network::CoordinatorEnd;
use crate::world::{Broken, HEARTBEAT, POLICY, World};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// Time between two looks at who leads.
const LEAD: Duration = Duration::from_secs(5);

/// What reaches the loop.
pub(crate) enum Input {
    Event(Event),
    Connected(CoordinatorEnd),
    Join(Register, CoordinatorEnd),
    /// Somebody wants a job; told once the store knows.
    Submit(String, oneshot::Sender<()>),
    /// Waits until no end of the job is on its way to the store.
    Admit(String, oneshot::Sender<()>),
    Planned(String, submissions::Round, Vec<bool>),
    Cancel(String),
    State(String, oneshot::Sender<Option<JobState>>),
    /// The end of a round is in the store.
    Settled(String, submissions::Round, JobState),
    Deposed,
}

struct Coordinator {
    world: World,
    process: Process,
    store: Store,
    leadership: Leadership,
    core: Core,
    watch: Watch,
    inbox: UnboundedSender<Input>,
    workers: BTreeMap<WorkerId, UnboundedSender<ToWorker>>,
    next_worker: u64,
    rounds: BTreeMap<String, submissions::Round>,
    settled: BTreeMap<String, (submissions::Round, JobState)>,
    /// Those who want a job again, and what was noted as its next round, while its end is on its way.
    again: Vec<(String, oneshot::Sender<()>)>,
    next: BTreeMap<String, (submissions::Round, Vec<bool>)>,
    submissions: u64,
    began: Duration,
}

/// Leads until somebody else does.
pub(crate) async fn lead(world: World, process: Process) {
    let store = world.store();
    let claim = if world.broken == Some(Broken::SameClaims) { "a machine".into() } else { process.to_string() };
    let Ok(leadership) = Leadership::take(&store, &claim).await else { return };
    let term = leadership.term();
    world.sim.log(|| format!("coordinator {process} leads term {term}"));
    world.leads(term);
    let (inbox, mut inputs) = unbounded_channel();
    let mut coordinator = Coordinator {
        core: Core::new(POLICY, term),
        watch: Watch::new(&world.sim, term),
        began: world.sim.now(),
        store,
        leadership,
        process,
        inbox: inbox.clone(),
        workers: BTreeMap::new(),
        next_worker: 0,
        rounds: BTreeMap::new(),
        settled: BTreeMap::new(),
        again: Vec::new(),
        next: BTreeMap::new(),
        submissions: 0,
        world,
    };
    if coordinator.take_up().await.is_err() {
        return;
    }
    let listening = coordinator.world.listen(process, term, inbox);
    coordinator.run(&mut inputs).await;
    drop(listening);
}

impl Coordinator {
    async fn take_up(&mut self) -> coordinator::Result<()> {
        let names = self.world.catalogue.jobs.iter().map(|(name, _)| name.clone()).collect();
        let active = submissions::active(&self.store, names).await?;
        let some = !active.is_empty();
        for Active { job, round, .. } in active {
            let complete = self.complete(&job).await?;
            self.submit(&job, round, &complete);
        }
        if some {
            self.core.expect_claims(self.now());
        }
        Ok(())
    }

    async fn run(&mut self, inputs: &mut UnboundedReceiver<Input>) {
        let (mut tick, mut lead) = (self.world.sim.sleep(TICK), self.world.sim.sleep(LEAD));
        loop {
            tokio::select! {
                biased;
                Some(input) = inputs.recv() => {
                    if !self.take(input) {
                        return;
                    }
                }
                () = &mut tick => {
                    tick = self.world.sim.sleep(TICK);
                    self.feed(Event::Tick);
                }
                () = &mut lead => {
                    lead = self.world.sim.sleep(LEAD);
                    let (store, leadership, inbox) = (self.store.clone(), self.leadership.clone(), self.inbox.clone());
                    self.world.sim.spawn(self.process, async move {
                        if matches!(leadership.check(&store).await, Err(coordinator::Error::Deposed { .. })) {
                            let _ = inbox.send(Input::Deposed);
                        }
                    });
                }
            }
        }
    }

    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Event(event) => self.feed(event),
            Input::Connected(end) => self.connected(end),
            Input::Join(register, end) => self.join(register, end),
            Input::Submit(job, reply) => self.enter(job, reply),
            Input::Admit(job, reply) => self.admit(job, reply),
            Input::Planned(job, round, complete) => self.submit(&job, round, &complete),
            Input::Cancel(job) => self.feed(Event::Cancelled { job: JobId(job), reason: "enough".into() }),
            Input::State(job, reply) => {
                let _ = reply.send(self.state(&job));
            }
            Input::Settled(job, round, state) => self.settled(job, round, state),
            Input::Deposed => {
                self.world.sim.log(|| format!("term {} is over", self.leadership.term()));
                return false;
            }
        }
        true
    }

    /// How a job stands, its end only once the store has it.
    fn state(&self, job: &str) -> Option<JobState> {
        let settled = || self.settled.get(job).map(|(_, state)| *state);
        self.core.state(&JobId(job.to_owned())).map(|_| JobState::Running).or_else(settled)
    }

    fn now(&self) -> Duration {
        self.world.sim.now() - self.began
    }

    async fn complete(&self, job: &str) -> coordinator::Result<Vec<bool>> {
        let mut complete = Vec::new();
        for stage in self.world.catalogue.stages(job) {
            complete.push(artifact::is_complete(&self.store, &stage.artifact).await?);
        }
        Ok(complete)
    }

    fn connected(&self, mut end: CoordinatorEnd) {
        let inbox = self.inbox.clone();
        self.world.sim.spawn(self.process, async move {
            if let Some(FromWorker::Register(register)) = end.hear().await {
                let _ = inbox.send(Input::Join(register, end));
            }
        });
    }

    fn join(&mut self, register: Register, mut end: CoordinatorEnd) {
        if register.term > self.leadership.term() {
            return; // somebody else leads
        }
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        let welcome = Welcome {
            worker,
            root: "s3://shop".into(),
            heartbeat: HEARTBEAT,
            term: self.leadership.term(),
            store_patience: Duration::ZERO,
            step_patience: Duration::ZERO,
        };
        let (to, mut words) = unbounded_channel();
        let _ = to.send(ToWorker::Welcome(welcome));
        self.workers.insert(worker, to);
        let inbox = self.inbox.clone();
        self.world.sim.spawn(self.process, async move {
            loop {
                tokio::select! {
                    biased;
                    word = words.recv() => match word {
                        Some(word) => { end.say(word); }
                        None => break,
                    },
                    heard = end.hear() => match heard {
                        Some(word) => drop(inbox.send(Input::Event(Event::Said(worker, word)))),
                        None => break,
                    },
                }
            }
            let _ = inbox.send(Input::Event(Event::Left(worker)));
        });
        let Register { name, device, mut claims, job, .. } = register;
        self.world.sim.log(|| format!("term {}: {worker} is {name}, claims {claims:?}", self.leadership.term()));
        for claim in &claims {
            let stages = self.world.catalogue.all_stages();
            let id = stages.keys().find(|id| id.digest.as_str() == claim.digest);
            self.watch.claimed(worker, id, claim);
        }
        if self.world.broken == Some(Broken::ClaimsIgnored) {
            claims.clear();
        }
        self.feed(Event::Joined(worker, Joiner { name, device, claims, job }));
    }

    fn feed(&mut self, event: Event) {
        let term = self.leadership.term();
        self.observe(&event);
        if !matches!(event, Event::Tick | Event::Said(_, FromWorker::Heartbeat | FromWorker::Progress { .. })) {
            self.world.sim.log(|| format!("term {term}: {event:?}"));
        }
        let now = self.now();
        for action in self.core.handle(event, now) {
            self.world.sim.log(|| format!("term {term}:   → {action:?}"));
            self.perform(action);
        }
        for job in self.core.jobs() {
            if let Some(status) = self.core.status(job, now) {
                self.watch.shown(&status);
            }
        }
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Opened { artifact, done, .. } => {
                self.watch.opened(artifact, done);
                self.tally(artifact.clone(), done.clone());
                if self.world.broken == Some(Broken::EarlySuccess) {
                    self.succeed_early(artifact);
                }
            }
            Event::Quarantined { artifact, committed } => self.watch.put_aside(artifact, committed.shard),
            Event::Left(worker) => {
                self.workers.remove(worker);
                self.watch.gone(*worker);
            }
            Event::Said(worker, word) => self.watch.said(*worker, word),
            _ => {}
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open(id) => self.open(id),
            Action::Finish(id) => self.finish(id),
            Action::Quarantine(id, shard, reason) => self.quarantine(id, shard, reason),
            Action::Grant(worker, lease) => {
                self.watch.granted(worker, &lease);
                let grant = Grant {
                    lease: lease.id,
                    job: lease.job,
                    job_toml: String::new(),
                    stage: lease.artifact.stage.to_string(),
                    split: lease.split.map(|s| s.to_string()),
                    digest: lease.artifact.digest.to_string(),
                    shards: lease.shards,
                    of: lease.of,
                };
                self.tell(worker, ToWorker::Grant(grant));
            }
            Action::Revoke(worker, lease, reason) => {
                self.watch.revoked(lease, self.core.lease_of(worker) == Some(lease));
                self.tell(worker, ToWorker::Revoke { lease, reason });
            }
            Action::Begin(worker, generation) => {
                self.watch.begun(&generation);
                self.tell(worker, ToWorker::Generation(generation));
            }
            Action::Regroup(worker, lease, generation) => self.tell(worker, ToWorker::Regroup { lease, generation }),
            Action::Abort(worker, lease, generation, reason) => {
                self.tell(worker, ToWorker::Abort { lease, generation, reason });
            }
            Action::Evict(worker, reason) => {
                self.watch.gone(worker);
                self.tell(worker, ToWorker::Refused(reason));
                self.workers.remove(&worker);
            }
            Action::Ended(job, state) => self.settle(job.0, state),
        }
    }

    fn tell(&self, worker: WorkerId, word: ToWorker) {
        if let Some(to) = self.workers.get(&worker) {
            let _ = to.send(word);
        }
    }
}
