//! The coordinator's decisions, without I/O: events in, actions out.
//!
//! ```text
//! artifact   Waiting ──inputs done──► Opening ──Opened──► Open ──all shards done──► Finishing ──Finished──► Done
//!                                        └──────────────── Broken / too many failures ─────────────► Failed
//! shard      pending ──Grant──► leased ──Committed──► done
//!               ▲                 │ Failed(retry), Returned, worker left or silent
//!               └─────────────────┘
//! ```
//!
//! There is no clock, randomness, lock or hash order in here: the same events at the same times give the same actions.

mod artifacts;
mod jobs;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use data::artifact::ArtifactId;
use data::job::{Split, Stage};
use proto::{FailureClass, FromWorker, JobId, JobState, JobStatus, LeaseId, WorkerId};

use artifacts::Artifact;
use jobs::Job;
use workers::Worker;

/// Limits that turn silence and failure into decisions.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A worker that is silent for so long is lost.
    pub dead_after: Duration,
    /// A shard that fails so often fails its stage.
    pub max_failures: u32,
    /// A shard whose workers vanish so often fails its stage.
    pub max_losses: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { dead_after: Duration::from_secs(10), max_failures: 3, max_losses: 5 }
    }
}

/// One stage of a submitted job.
#[derive(Clone, Debug)]
pub struct StageEntry {
    /// What it makes.
    pub artifact: ArtifactId,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// What it reads; all of it stands earlier in the job.
    pub needs: Vec<ArtifactId>,
    /// Whether the store holds it already.
    pub complete: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job was submitted.
    Submitted {
        /// The job.
        job: JobId,
        /// Its stages in order.
        stages: Vec<StageEntry>,
    },
    /// The shards of an artifact are known.
    Opened {
        /// The artifact.
        artifact: ArtifactId,
        /// Rows of every shard; 0 where unknown.
        rows: Vec<u64>,
        /// Shards with a done record.
        done: Vec<u32>,
    },
    /// An artifact is complete in the store.
    Finished(ArtifactId),
    /// An artifact can neither be opened nor finished.
    Broken {
        /// The artifact.
        artifact: ArtifactId,
        /// Whether the same may succeed later.
        class: FailureClass,
        /// Why.
        reason: String,
    },
    /// A worker registered.
    Joined(WorkerId),
    /// A worker's stream closed.
    Left(WorkerId),
    /// A worker said something.
    Said(WorkerId, FromWorker),
    /// Somebody cancelled a job.
    Cancelled {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The report of a job whose stages are all done cannot be written.
    Unreported {
        /// The job.
        job: JobId,
        /// Whether the same may succeed later.
        class: FailureClass,
        /// Why.
        reason: String,
    },
    /// Time passed.
    Tick,
}

/// Shards for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// A job that wants it.
    pub job: JobId,
    /// What it makes.
    pub artifact: ArtifactId,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// The shards.
    pub shards: Vec<u32>,
    /// Shards in all.
    pub of: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out the shards of an artifact and answer with [`Event::Opened`].
    Open(ArtifactId),
    /// Complete an artifact whose shards are all done and answer with [`Event::Finished`].
    Finish(ArtifactId),
    /// Give shards to a worker.
    Grant(WorkerId, Lease),
    /// Take a lease back.
    Revoke(WorkerId, LeaseId, String),
    /// Close a worker's session.
    Evict(WorkerId, String),
    /// A job has ended.
    Ended(JobId, JobState),
}

/// Everything that the coordinator knows while it leads.
#[derive(Debug, Default)]
pub struct Core {
    policy: Policy,
    next_lease: u64,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs in the order of their submission, which is the order of service.
    queue: Vec<JobId>,
    artifacts: BTreeMap<ArtifactId, Artifact>,
    workers: BTreeMap<WorkerId, Worker>,
}

impl Core {
    /// A coordinator that knows nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Takes in an event at time `now` (since the start) and says what to do.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Submitted { job, stages } => self.submit(job, stages),
            Event::Opened { artifact, rows, done } => self.opened(&artifact, rows, &done),
            Event::Finished(artifact) => self.finished(&artifact),
            Event::Broken { artifact, class, reason } => self.break_artifact(&artifact, class, reason),
            Event::Joined(worker) => {
                self.workers.insert(worker, Worker::new(now));
            }
            Event::Left(worker) => self.lose(worker),
            Event::Said(worker, message) => self.hear(worker, message, now, &mut actions),
            Event::Cancelled { job, reason } => self.cancel(&job, reason),
            Event::Unreported { job, class, reason } => self.unreported(&job, class, &reason),
            Event::Tick => self.evict_silent(now, &mut actions),
        }
        self.settle_jobs(&mut actions);
        self.revoke_unwanted(&mut actions);
        self.open_ready(&mut actions);
        self.finish_complete(&mut actions);
        self.grant_idle(&mut actions);
        actions
    }

    /// The status of a job.
    #[must_use]
    pub fn status(&self, job: &JobId) -> Option<JobStatus> {
        let known = self.jobs.get(job)?;
        let stages = known.stages.iter().map(|s| self.stage_status(s)).collect();
        Some(JobStatus {
            job: job.clone(),
            state: known.state,
            stages,
            workers: u32::try_from(self.workers.len()).unwrap_or(u32::MAX),
            reason: known.reason.clone(),
            failure: known.failure,
        })
    }

    /// Every job in the order of submission.
    #[must_use]
    pub fn jobs(&self) -> &[JobId] {
        &self.queue
    }

    /// The stage that an artifact belongs to, for messages.
    fn stage_name(artifact: &ArtifactId, split: Option<Split>) -> String {
        let stage: Stage = artifact.stage;
        split.map_or_else(|| stage.to_string(), |split| format!("{stage}:{split}"))
    }
}
