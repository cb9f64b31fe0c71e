//! What coordinator, workers and clients say to each other.

use std::time::Duration;

use crate::{JobId, LeaseId, WorkerId};

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
        /// The shard.
        shard: u32,
        /// Rows of the shard.
        rows: u64,
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
    /// The coordinator ends.
    Shutdown(String),
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The status of one stage of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageStatus {
    /// The stage by name.
    pub stage: String,
    /// The split by name, where it has one.
    pub split: Option<String>,
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
}
