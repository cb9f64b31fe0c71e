//! The coordinator as a process: one loop that feeds the core and carries out what it decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use data::artifact::{self, ArtifactId};
use data::job::{Job, Stage};
use data::store::Store;
use futures::{FutureExt, TryFutureExt};
use proto::{Grant, JobId, JobState, JobStatus, ToWorker, Welcome, WorkerId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::Access;
use crate::core::{Action, Core, Event, Lease, Policy, StageEntry};
use crate::inbox::{Input, Submission};
use crate::leadership::Leadership;
use crate::opening::{open_artifact, patiently, planned};
use crate::plan::PlannedStage;
use crate::{Error, Result, records, report, rpc};

/// How long open streams may delay the end.
const GRACE: Duration = Duration::from_secs(2);

/// How a coordinator is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may call; open to this machine by default.
    pub access: Access,
    /// Limits that turn silence into decisions.
    pub policy: Policy,
    /// Time between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// A file that remembers the digests of input files between runs.
    pub digest_cache: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            access: Access::default(),
            policy: Policy::default(),
            heartbeat: Duration::from_secs(1),
            digest_cache: None,
        }
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Coordinator {
    /// Takes the lead over the root of `store` and listens.
    ///
    /// # Errors
    /// If the store cannot be written, the address not be listened on, or strangers could reach it.
    pub async fn start(store: Store, options: Options) -> Result<Self> {
        let listening =
            |e: std::io::Error| Error::Listen { address: options.listen.to_string(), reason: e.to_string() };
        let door = options.access.door(options.listen)?;
        let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let leadership = Leadership::take(&store, &address.to_string()).await?;
        info!(term = leadership.term(), %address, root = store.url(), "leading");
        let stop = CancellationToken::new();
        let (inbox, inputs) = mpsc::channel(1024);
        let shell = Shell::new(store, options, leadership, inbox.clone());
        let server = tokio::spawn(rpc::serve(listener, door, inbox, stop.clone()));
        let task = tokio::spawn(run(shell, inputs, server, stop.clone()));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the workers, stops listening and ends.
    ///
    /// # Errors
    /// What the coordinator ended of, if it ended before.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.join().await
    }

    /// Waits until the coordinator ends, by itself or by force.
    ///
    /// # Errors
    /// What it ended of.
    pub async fn join(self) -> Result<()> {
        self.task.await.map_err(|e| Error::Server(e.to_string()))?
    }
}

struct KnownJob {
    job: Box<Job>,
    toml: String,
    status: watch::Sender<JobStatus>,
    /// Whether the report is written, so that the last status may be shown.
    settled: bool,
}

struct Shell {
    core: Core,
    store: Store,
    options: Options,
    leadership: Leadership,
    inbox: mpsc::Sender<Input>,
    started: Instant,
    jobs: BTreeMap<JobId, KnownJob>,
    stages: BTreeMap<ArtifactId, PlannedStage>,
    workers: BTreeMap<WorkerId, mpsc::Sender<ToWorker>>,
    next_worker: u64,
    /// Where a check of the leadership tells that somebody else leads.
    depose: mpsc::Sender<Error>,
    deposed: mpsc::Receiver<Error>,
}

async fn run(
    mut shell: Shell,
    mut inputs: mpsc::Receiver<Input>,
    mut server: tokio::task::JoinHandle<Result<()>>,
    stop: CancellationToken,
) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut lead = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            biased; // what workers have said comes before the clock that finds them silent
            () = stop.cancelled() => break,
            Some(input) = inputs.recv() => shell.take(input),
            _ = tick.tick() => shell.feed(Event::Tick),
            _ = lead.tick() => shell.check_leadership(),
            Some(deposed) = shell.deposed.recv() => {
                shell.dismiss("another coordinator leads").await;
                stop.cancel();
                return Err(deposed);
            }
            ended = &mut server => return ended.map_err(|e| Error::Server(e.to_string()))?,
        }
    }
    shell.dismiss("the coordinator is stopping").await;
    drop(shell);
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended.map_err(|e| Error::Server(e.to_string()))?,
        Err(_) => Ok(()), // a client that keeps its stream open does not keep the coordinator
    }
}

impl Shell {
    fn new(store: Store, options: Options, leadership: Leadership, inbox: mpsc::Sender<Input>) -> Self {
        let core = Core::new(options.policy);
        let (depose, deposed) = mpsc::channel(1);
        Self {
            core,
            store,
            options,
            leadership,
            inbox,
            started: Instant::now(),
            jobs: BTreeMap::new(),
            stages: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            depose,
            deposed,
        }
    }

    /// Asks the store beside the loop who leads: a slow store must not make workers look silent.
    fn check_leadership(&self) {
        let (store, leadership, depose) = (self.store.clone(), self.leadership.clone(), self.depose.clone());
        tokio::spawn(async move {
            match leadership.check(&store).await {
                Err(deposed @ Error::Deposed { .. }) => drop(depose.send(deposed).await),
                Err(e) => warn!(error = %e, "cannot check the leadership, will try again"),
                Ok(()) => {}
            }
        });
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.feed(event),
            Input::Submit(job, reply) => self.look_up(job, reply),
            Input::Planned(submission) => self.submit(*submission),
            Input::Join(to, reply) => self.join(to, reply),
            Input::Watch(job, reply) => {
                let _ = reply.send(self.jobs.get(&job).map(|j| j.status.subscribe()));
            }
            Input::List(reply) => {
                let _ = reply.send(self.core.jobs().iter().filter_map(|id| self.core.status(id)).collect());
            }
            Input::Reported(job, outcome) => self.reported(&job, outcome),
        }
    }

    fn feed(&mut self, event: Event) {
        if let Event::Left(worker) = &event {
            self.workers.remove(worker);
        }
        for action in self.core.handle(event, self.started.elapsed()) {
            self.perform(action);
        }
        self.publish();
    }

    /// Plans a job and asks the store what is done, beside the loop.
    fn look_up(&self, job: Box<Job>, reply: oneshot::Sender<Result<(JobId, bool)>>) {
        let (store, inbox, cache) = (self.store.clone(), self.inbox.clone(), self.options.digest_cache.clone());
        tokio::spawn(async move {
            match patiently("look up a job", || planned(&store, &job, cache.as_deref()).boxed()).await {
                Ok((plan, complete)) => {
                    let submission = Submission { job, plan, complete, reply };
                    let _ = inbox.send(Input::Planned(Box::new(submission))).await;
                }
                Err(e) => {
                    let _ = reply.send(Err(e));
                }
            }
        });
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { job, plan, complete, reply } = submission;
        let id = plan.id.clone();
        let all = complete.iter().all(|c| *c);
        if self.core.status(&id).is_none_or(|s| s.state.ended()) {
            let stages = plan.stages.iter().zip(&complete).map(|(s, complete)| StageEntry {
                artifact: s.artifact.clone(),
                split: s.split,
                needs: s.needs.clone(),
                complete: *complete,
            });
            let event = Event::Submitted { job: id.clone(), stages: stages.collect() };
            for stage in plan.stages {
                self.stages.insert(stage.artifact.clone(), stage);
            }
            info!(job = %id, complete = all, "job submitted");
            let first = JobStatus {
                job: id.clone(),
                state: JobState::Running,
                stages: vec![],
                workers: 0,
                reason: String::new(),
                failure: None,
            };
            let known = KnownJob { toml: job.to_toml(), job, status: watch::Sender::new(first), settled: false };
            self.jobs.insert(id.clone(), known);
            self.feed(event);
        }
        let _ = reply.send(Ok((id, all)));
    }

    fn join(&mut self, to: mpsc::Sender<ToWorker>, reply: oneshot::Sender<WorkerId>) {
        self.next_worker += 1;
        let id = WorkerId(self.next_worker);
        let welcome = Welcome { worker: id, root: self.store.url().to_owned(), heartbeat: self.options.heartbeat };
        if to.try_send(ToWorker::Welcome(welcome)).is_ok() && reply.send(id).is_ok() {
            self.workers.insert(id, to);
            self.feed(Event::Joined(id));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open(id) => self.open(id),
            Action::Finish(id) => self.finish(id),
            Action::Grant(worker, lease) => self.grant(worker, lease),
            Action::Revoke(worker, lease, reason) => self.tell(worker, ToWorker::Revoke { lease, reason }),
            Action::Evict(worker, reason) => {
                warn!(%worker, reason, "worker evicted");
                self.tell(worker, ToWorker::Refused(reason));
                self.workers.remove(&worker);
            }
            Action::Ended(job, state) => self.settle(job, state),
        }
    }

    fn open(&self, id: ArtifactId) {
        let Some(stage) = self.stages.get(&id).cloned() else { return };
        let prepare = stage.needs.iter().find(|n| n.stage == Stage::Prepare).cloned();
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let event =
                match patiently("open a stage", || open_artifact(&store, &stage, prepare.as_ref()).boxed()).await {
                    Ok((rows, done)) => Event::Opened { artifact: id, rows, done },
                    Err(e) => Event::Broken { artifact: id, class: e.class(), reason: e.to_string() },
                };
            let _ = inbox.send(Input::Event(event)).await;
        });
    }

    fn finish(&self, id: ArtifactId) {
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let event = match patiently("finish a stage", || artifact::finish(&store, &id).err_into().boxed()).await {
                Ok(_) => Event::Finished(id),
                Err(e) => Event::Broken { artifact: id, class: e.class(), reason: e.to_string() },
            };
            let _ = inbox.send(Input::Event(event)).await;
        });
    }

    fn grant(&mut self, worker: WorkerId, lease: Lease) {
        let Some(known) = self.jobs.get(&lease.job) else { return };
        info!(%worker, lease = %lease.id, artifact = %lease.artifact, shards = ?lease.shards, "lease granted");
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
    fn tell(&mut self, worker: WorkerId, message: ToWorker) {
        let Some(to) = self.workers.get(&worker) else { return };
        if to.try_send(message).is_err() {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { inbox.send(Input::Event(Event::Left(worker))).await });
        }
    }

    /// Writes the report of a job that succeeded before anybody hears of its end.
    fn settle(&mut self, id: JobId, state: JobState) {
        let Some(known) = self.jobs.get_mut(&id) else { return };
        if state != JobState::Succeeded {
            known.settled = true;
            if state == JobState::Cancelled {
                let reason = self.core.status(&id).map(|s| s.reason).unwrap_or_default();
                let (store, job) = (self.store.clone(), id.0);
                tokio::spawn(async move {
                    if let Err(e) = records::cancelled(&store, &job, &reason).await {
                        error!(job, error = %e, "cannot note that the job was cancelled");
                    }
                });
            }
            return;
        }
        let (store, inbox, job) = (self.store.clone(), self.inbox.clone(), known.job.clone());
        tokio::spawn(async move {
            let outcome = patiently("write the report of a job", || write_report(&store, &id, &job).boxed()).await;
            let _ = inbox.send(Input::Reported(id, outcome)).await;
        });
    }

    fn reported(&mut self, id: &JobId, outcome: Result<()>) {
        if let Some(known) = self.jobs.get_mut(id) {
            known.settled = true;
        }
        match outcome {
            Ok(()) => self.publish(),
            Err(e) => {
                error!(job = %id, error = %e, "cannot write the report of a job whose stages are all done");
                self.feed(Event::Unreported { job: id.clone(), class: e.class(), reason: e.to_string() });
            }
        }
    }

    /// Shows every watcher the newest status, once.
    fn publish(&self) {
        for (id, known) in &self.jobs {
            let Some(mut status) = self.core.status(id) else { continue };
            if status.state.ended() && !known.settled {
                status.state = JobState::Running;
            }
            known.status.send_if_modified(|shown| {
                let changed = *shown != status;
                *shown = status;
                changed
            });
        }
    }

    async fn dismiss(&mut self, reason: &str) {
        for to in self.workers.values() {
            let _ = to.send(ToWorker::Shutdown(reason.to_owned())).await;
        }
        self.workers.clear();
    }
}

async fn write_report(store: &Store, id: &JobId, job: &Job) -> Result<()> {
    let stages = records::stages(store, &id.0).await?;
    report::write(store, &id.0, job, &stages).await
}
