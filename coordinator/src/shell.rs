//! The shell around the core: carries out what it decides, and tells workers, watchers and the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use data::artifact::ArtifactId;
use data::job::Job;
use data::store::Store;
use proto::{Grant, Info, JobId, JobStatus, Register, ToWorker, Welcome, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::Error;
use crate::coordinator::Options;
use crate::core::{Action, Core, Event, Joiner, Lease};
use crate::ended::EndedJobs;
use crate::inbox::{Input, Submission, Watcher};
use crate::journal::{Journal, Writer};
use crate::leadership::{Leadership, Lookout};
use crate::plan::PlannedStage;
use crate::quarantine::Quarantines;
use crate::submissions::{Round, Submitted};

/// How long the end waits for the journals.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A job that was submitted here or left by the coordinator before, until its end is in the store.
pub(crate) struct KnownJob {
    pub(crate) job: Box<Job>,
    toml: String,
    pub(crate) status: watch::Sender<JobStatus>,
    /// The round that the store has of it.
    pub(crate) round: Option<Round>,
    /// How that was submitted: under an earlier coordinator, it may be.
    submitted: Option<Submitted>,
    /// How old it was when it came here, in whole seconds.
    older: Duration,
    /// Those who want it again, while its end is on its way to the store.
    pub(crate) again: Vec<oneshot::Sender<()>>,
    /// What was noted in the store as its next round before that end was heard of here.
    pub(crate) next: Option<Box<Submission>>,
    /// Those who watch that round.
    pub(crate) watches: Vec<Watcher>,
}

impl KnownJob {
    pub(crate) fn new(job: Box<Job>, round: Option<Round>, submitted: Option<Submitted>, first: JobStatus) -> Self {
        let older = submitted.as_ref().map_or(0, |submitted| submitted.age().as_secs());
        let (toml, status, older) = (job.to_toml(), watch::Sender::new(first), Duration::from_secs(older));
        Self { toml, job, status, round, submitted, older, again: vec![], next: None, watches: vec![] }
    }

    /// What the core cannot know of a job that came from another coordinator: how old it is, and that it has itself made
    /// what is complete and was not when it was submitted first.
    pub(crate) fn amend(&self, status: &mut JobStatus) {
        status.age += self.older;
        if let Some(before) = self.submitted.as_ref().and_then(|submitted| submitted.complete.as_ref()) {
            for stage in &mut status.stages {
                stage.reused &= before.iter().any(|digest| digest.as_str() == stage.digest);
            }
        }
    }
}

pub(crate) struct Shell {
    pub(crate) core: Core,
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) leadership: Leadership,
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) jobs: BTreeMap<JobId, KnownJob>,
    pub(crate) ended: EndedJobs,
    /// The jobs in hand and those that have ended, in the order of their submission.
    pub(crate) listed: Vec<JobId>,
    pub(crate) stages: BTreeMap<ArtifactId, PlannedStage>,
    pub(crate) journal: Journal,
    /// Submissions so far.
    pub(crate) submissions: u64,
    /// Where a check of the leadership tells that somebody else leads.
    pub(crate) deposed: mpsc::Receiver<Error>,
    pub(crate) writer: Writer,
    lookout: Lookout,
    workers: BTreeMap<WorkerId, mpsc::Sender<ToWorker>>,
    pub(crate) quarantines: Quarantines,
    /// Workers that wait for a job of theirs.
    pub(crate) waiting: crate::bound::Waiting,
    next_worker: u64,
    started: Instant,
}

impl Shell {
    pub(crate) fn new(store: Store, options: Options, leadership: Leadership, inbox: mpsc::Sender<Input>) -> Self {
        let (depose, deposed) = mpsc::channel(1);
        Self {
            core: Core::new(options.policy, leadership.term()),
            journal: Journal::new(leadership.term()),
            writer: Writer::start(store.clone()),
            lookout: Lookout::new(store.clone(), leadership.clone(), depose),
            store,
            options,
            leadership,
            inbox,
            jobs: BTreeMap::new(),
            ended: EndedJobs::default(),
            listed: Vec::new(),
            stages: BTreeMap::new(),
            submissions: 0,
            deposed,
            workers: BTreeMap::new(),
            quarantines: Quarantines::default(),
            waiting: crate::bound::Waiting::new(),
            next_worker: 0,
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks the store beside the loop who leads.
    pub(crate) fn check_leadership(&mut self) {
        self.lookout.look();
    }

    pub(crate) fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.feed(event),
            Input::Submit(job, reply) => self.look_up(job, reply),
            Input::Resume(job, reply) => self.resume(job, reply),
            Input::Admit(job, reply) => self.admit(&job, reply),
            Input::Planned(submission) => self.submit(*submission),
            Input::Join(register, to, reply) => self.join(register, to, reply),
            Input::Watch(job, reply) => self.watch(&job, reply),
            Input::List(reply) => {
                let _ = reply.send(self.listed.iter().filter_map(|id| self.shown(id)).collect());
            }
            Input::Info(reply) => {
                let (root, build) = (self.store.url().to_owned(), env!("CARGO_PKG_VERSION").to_owned());
                let (term, workers) = (self.leadership.term(), self.core.workers());
                let waiting = self.store.trouble().unwrap_or_default();
                let _ = reply.send(Info { root, term, build, workers, waiting });
            }
            Input::Reported(job, outcome) => self.reported(&job, outcome),
            Input::Settled(job, noted) => self.settled(&job, noted),
        }
    }

    /// Answers with what there is to watch of a job. Where its next round waits for the end of the one before, that is it.
    pub(crate) fn watch(&mut self, job: &JobId, reply: Watcher) {
        let now = self.now();
        match self.jobs.get_mut(job) {
            Some(known) if known.next.is_some() => known.watches.push(reply),
            Some(known) => drop(reply.send(Some(known.status.subscribe()))),
            None => drop(reply.send(self.ended.watch(job, now))),
        }
    }

    pub(crate) fn feed(&mut self, event: Event) {
        self.note(&event);
        match &event {
            Event::Left(worker) => drop(self.workers.remove(worker)),
            Event::Finished(artifact) | Event::Broken { artifact, .. } => self.quarantines.end(artifact),
            _ => {}
        }
        let now = self.now();
        let actions = self.core.handle(event, now);
        // What changes a stage is shown at once, what only counts up with the next tick.
        let show = actions.iter().any(|a| matches!(a, Action::Open(_) | Action::Finish(_) | Action::Ended(..)));
        self.note_actions(&actions);
        for action in actions {
            self.perform(action);
        }
        if show {
            self.publish();
        }
    }

    fn join(&mut self, register: Register, to: mpsc::Sender<ToWorker>, reply: oneshot::Sender<WorkerId>) {
        if register.term > self.leadership.term() {
            return self.check_leadership(); // somebody else leads; whoever asked tries again
        }
        self.next_worker += 1;
        let id = WorkerId(self.next_worker);
        let welcome = Welcome {
            worker: id,
            root: self.store.url().to_owned(),
            heartbeat: self.options.heartbeat,
            term: self.leadership.term(),
            store_patience: self.options.store_patience,
            step_patience: self.options.step_patience,
        };
        if to.try_send(ToWorker::Welcome(welcome)).is_ok() && reply.send(id).is_ok() {
            let Register { name, device, claims, job, .. } = register;
            if let Some(job) = job.clone().filter(|_| self.options.lasting) {
                self.tell_of_end(job, to.clone());
            }
            self.workers.insert(id, to);
            self.feed(Event::Joined(id, Joiner { name, device, claims, job }));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open(id) => self.open(id),
            Action::Finish(id) => self.finish(id),
            Action::Quarantine(id, shard, reason) => self.quarantine(&id, shard, reason),
            Action::Grant(worker, lease) => self.grant(worker, lease),
            Action::Revoke(worker, lease, reason) => self.tell(worker, ToWorker::Revoke { lease, reason }),
            Action::Begin(worker, generation) => self.tell(worker, ToWorker::Generation(generation)),
            Action::Regroup(worker, lease, generation) => self.tell(worker, ToWorker::Regroup { lease, generation }),
            Action::Abort(worker, lease, generation, reason) => {
                self.tell(worker, ToWorker::Abort { lease, generation, reason });
            }
            Action::Evict(worker, reason) => {
                warn!(%worker, reason, "worker evicted");
                self.tell(worker, ToWorker::Refused(reason));
                self.workers.remove(&worker);
            }
            Action::Ended(job, state) => self.settle(job, state),
        }
    }

    fn grant(&mut self, worker: WorkerId, lease: Lease) {
        let Some(known) = self.jobs.get(&lease.job) else { return };
        let (artifact, shards) = (&lease.artifact, &lease.shards);
        info!(%worker, job_id = %lease.job, lease = %lease.id, %artifact, ?shards, "lease granted");
        let grant = Grant {
            lease: lease.id,
            job: lease.job,
            job_toml: known.toml.clone(),
            stage: lease.artifact.stage.to_string(),
            split: lease.split.map(|s| s.to_string()),
            digest: lease.artifact.digest.to_string(),
            shards: lease.shards,
            of: lease.of,
        };
        self.tell(worker, ToWorker::Grant(grant));
    }

    /// A worker that does not take its messages counts as gone.
    pub(crate) fn tell(&mut self, worker: WorkerId, message: ToWorker) {
        let Some(to) = self.workers.get(&worker) else { return };
        if to.try_send(message).is_err() {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { inbox.send(Input::Event(Event::Left(worker))).await });
        }
    }

    /// Shows every watcher the newest status; what has ended does not change.
    pub(crate) fn publish(&self) {
        for (id, known) in &self.jobs {
            let Some(status) = self.shown(id) else { continue };
            known.status.send_if_modified(|shown| {
                let changed = *shown != status;
                *shown = status;
                changed
            });
        }
    }

    /// The status of a job as others may see it: its end only once the store has it.
    fn shown(&self, id: &JobId) -> Option<JobStatus> {
        let Some(mut status) = self.core.status(id, self.now()) else { return self.ended.status(id, self.now()) };
        self.jobs.get(id)?.amend(&mut status);
        status.state = proto::JobState::Running;
        if let Some(trouble) = self.store.trouble() {
            status.waiting = trouble;
        }
        Some(status)
    }

    /// Writes what is new in the journals beside the loop, unless what was new before is not written yet.
    pub(crate) fn write_journals(&mut self) {
        if self.writer.is_idle() {
            drop(self.writer.write(self.journal.take(None)));
        }
    }

    /// Ends the sessions. Workers of a lasting coordinator go on and look for its successor.
    pub(crate) async fn dismiss(&mut self, reason: &str) {
        for to in self.workers.values().filter(|_| !self.options.lasting) {
            let _ = to.send(ToWorker::Shutdown(reason.to_owned())).await;
        }
        self.workers.clear();
        // With what was handed over before.
        let written = self.writer.write(self.journal.take(None));
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }
}
