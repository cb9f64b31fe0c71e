//! What coordinator, workers and clients say to each other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Generation, GenerationId, JobId, LeaseId, Ready, WorkerId};

/// The first word of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The protocol version that it speaks.
    pub protocol: u32,
    /// Its build.
    pub build: String,
    /// A name for people.
    pub name: String,
    /// Its compute threads.
    pub threads: u32,
    /// Where it computes: cpu, cuda:0.
    pub device: String,
    /// The highest term that it has worked under.
    pub term: u64,
    /// What it still holds from a session that broke.
    pub claims: Vec<Claim>,
    /// The job that it is for: its id or its name. Any job if nothing is said.
    pub job: Option<String>,
}

/// A lease that outlived its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease.
    pub lease: LeaseId,
    /// The stage by name.
    pub stage: String,
    /// The artifact's digest.
    pub digest: String,
    /// Shards that are not committed yet, in the order of work.
    pub shards: Vec<u32>,
    /// The generation that it trains in, if it is in one.
    pub generation: Option<GenerationId>,
}

/// A shard whose done record is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The shard.
    pub shard: u32,
    /// Its rows.
    pub rows: u64,
    /// Time that it took.
    pub took: Duration,
    /// Rows that were put aside, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// How far a lease has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Units done in this lease.
    pub done: u64,
    /// Units in this lease; 0 while unknown.
    pub total: u64,
    /// What is counted: users, items, steps, rows.
    pub unit: String,
    /// Loss, metric or phase, for people.
    pub note: String,
}

/// What to do about a lease that ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The same work may succeed later or elsewhere.
    Retry,
    /// It will not succeed until somebody changes something.
    Fatal,
    /// The worker gave it back unharmed.
    Returned,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// It wants to work.
    Register(Register),
    /// It lives.
    Heartbeat,
    /// It takes no more leases and ends its session once it has handed back what it holds.
    Leaving,
    /// A lease has come this far.
    Progress {
        /// The lease.
        lease: LeaseId,
        /// How far.
        progress: Progress,
    },
    /// A shard's done record is in the store.
    Committed {
        /// The lease.
        lease: LeaseId,
        /// Which, and what it came to.
        committed: Committed,
    },
    /// Every shard of the lease is committed.
    Ended {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease ended without all of its shards.
    Failed {
        /// The lease.
        lease: LeaseId,
        /// What to do about it.
        class: FailureClass,
        /// Why, in words.
        reason: String,
    },
    /// A member of a gang waits for a generation.
    Ready(Ready),
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The session's id.
    pub worker: WorkerId,
    /// The root of the object store.
    pub root: String,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// The coordinator's term.
    pub term: u64,
    /// How long a task waits for a store that is away before it hands its lease back.
    pub store_patience: Duration,
    /// A step of a training that says nothing for so long, and for ten times as long as any lately, hangs.
    pub step_patience: Duration,
}

/// Work for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub lease: LeaseId,
    /// The job that wants it.
    pub job: JobId,
    /// The job file.
    pub job_toml: String,
    /// The stage by name.
    pub stage: String,
    /// The split by name, where the stage has one.
    pub split: Option<String>,
    /// The artifact's digest.
    pub digest: String,
    /// The shards to compute.
    pub shards: Vec<u32>,
    /// Shards of the artifact in all.
    pub of: u32,
}

/// What the coordinator says to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The worker is in.
    Welcome(Welcome),
    /// The worker is not wanted, and why.
    Refused(String),
    /// Work.
    Grant(Grant),
    /// A lease is over.
    Revoke {
        /// The lease.
        lease: LeaseId,
        /// Why.
        reason: String,
    },
    /// A gang trains on with these members.
    Generation(Generation),
    /// A generation is to end in order: all members finish the step at hand, then say that they are ready.
    Regroup {
        /// The member's lease.
        lease: LeaseId,
        /// Which.
        generation: GenerationId,
    },
    /// A generation has lost a member: nobody is to wait in it any more.
    Abort {
        /// The member's lease.
        lease: LeaseId,
        /// Which.
        generation: GenerationId,
        /// Why.
        reason: String,
    },
    /// The coordinator ends.
    Shutdown(String),
    /// The job that the worker is for has ended, and so does the worker.
    JobEnded {
        /// The job.
        job: JobId,
        /// Whether it succeeded.
        succeeded: bool,
        /// Why it did not.
        reason: String,
        /// Whether the same job may succeed later, where it did not.
        may_pass: bool,
    },
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Some stage is not done.
    Running,
    /// Every stage is done.
    Succeeded,
    /// A stage failed for good.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn ended(self) -> bool {
        self != Self::Running
    }

    /// Its name, the same in records, in figures and to people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageState {
    /// Its inputs are not done, or no worker has begun with it.
    Waiting,
    /// Its shards are worked on.
    Running,
    /// Its output is complete.
    Done,
    /// It failed for good.
    Failed,
}

/// The status of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Its stages in order.
    pub stages: Vec<StageStatus>,
    /// Workers connected to the coordinator.
    pub workers: u32,
    /// Why it failed or was cancelled.
    pub reason: String,
    /// Whether the same job may succeed later, where it failed.
    pub failure: Option<FailureClass>,
    /// What keeps a running job from going on; empty while it goes on.
    pub waiting: String,
    /// Time since this coordinator took the job, in whole seconds.
    pub age: Duration,
}

/// The status of one stage of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct StageStatus {
    /// The stage by name.
    pub stage: String,
    /// The split by name, where it has one.
    pub split: Option<String>,
    /// The settings of a trial of the job's sweep.
    pub trial: Option<String>,
    /// The artifact's digest.
    pub digest: String,
    /// Where it stands.
    pub state: StageState,
    /// How far it is, over all leases.
    pub progress: Progress,
    /// Whether it was done before the job was submitted.
    pub reused: bool,
    /// Leases that were given out again.
    pub retries: u32,
    /// Its shards.
    pub shards: ShardCounts,
    /// Leases granted so far.
    pub attempts: u32,
    /// How long the lease that has committed nothing for the longest time has done so, in whole seconds.
    pub oldest_lease: Duration,
    /// Committed rows a second lately; 0 until that says something.
    pub rate: f64,
    /// Rows that were put aside, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Shards that were put aside because they killed their workers.
    pub quarantined: Vec<u32>,
    /// Rows that leases at work have computed and not committed.
    pub working: u64,
    /// Workers that train together now; 0 where nobody trains.
    pub members: u32,
    /// How often they began to under this coordinator: at the start, and whenever one came or went.
    pub generations: u32,
}

/// The shards of a stage; all 0 before it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// In all.
    pub all: u32,
    /// Done.
    pub done: u32,
    /// Given out now.
    pub leased: u32,
}

/// What a coordinator says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The root of the object store.
    pub root: String,
    /// How many coordinators have led this root so far, this one included.
    pub term: u64,
    /// Its build.
    pub build: String,
    /// Who works for it.
    pub workers: Vec<WorkerStatus>,
    /// What everything waits for; empty if nothing is in the way.
    pub waiting: String,
}

/// A connected worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its session.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Where it computes.
    pub device: String,
    /// The stage of the lease in its hands.
    pub stage: Option<String>,
    /// The job that the lease is for.
    pub job: Option<JobId>,
    /// Shards in its hands.
    pub shards: u32,
    /// It takes no more leases.
    pub leaving: bool,
    /// It has been silent for longer than is usual, and gets nothing new before it speaks.
    pub suspect: bool,
}
