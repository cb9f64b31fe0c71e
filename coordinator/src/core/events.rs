//! What the core is told, and what it says is to be done.

use data::artifact::ArtifactId;
use data::job::Split;
use proto::{Claim, Committed, FailureClass, FromWorker, Generation, GenerationId, JobId, JobState, LeaseId, WorkerId};

/// One stage of a submitted job.
#[derive(Clone, Debug)]
pub struct StageEntry {
    /// What it makes.
    pub artifact: ArtifactId,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// The settings of a trial of the job's sweep, for people.
    pub trial: Option<String>,
    /// What it reads; all of it stands earlier in the job.
    pub needs: Vec<ArtifactId>,
    /// Whether the store holds it already.
    pub complete: bool,
    /// The most workers that train it together; 1 for what is no training.
    pub gang: u32,
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
    /// What the records of shards that were done before say of rejected rows; it may come long after they were opened.
    Tallied {
        /// The artifact.
        artifact: ArtifactId,
        /// Those of them that have rejected rows.
        records: Vec<Committed>,
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
    /// A shard that killed its workers is put aside: its done record says so.
    Quarantined {
        /// The artifact.
        artifact: ArtifactId,
        /// The shard, with the rows that it has now and those that were put aside.
        committed: Committed,
    },
    /// A shard that was to be put aside is not: somebody has computed it before, or nobody wants it any more.
    Spared {
        /// The artifact.
        artifact: ArtifactId,
        /// The shard.
        shard: u32,
    },
    /// A worker registered.
    Joined(WorkerId, Joiner),
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

/// What a worker brings along.
#[derive(Clone, Debug, Default)]
pub struct Joiner {
    /// A name for people.
    pub name: String,
    /// Where it computes.
    pub device: String,
    /// What it still holds from a session that broke.
    pub claims: Vec<Claim>,
    /// The job that it is for: its id or its name. Any job if nothing is said.
    pub job: Option<String>,
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
    /// The shards, in the order of work.
    pub shards: Vec<u32>,
    /// Shards of the artifact in all.
    pub of: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out the shards of an artifact and answer with [`Event::Opened`].
    Open(ArtifactId),
    /// Complete an artifact whose shards are all done and answer with [`Event::Finished`].
    Finish(ArtifactId),
    /// Put a shard aside that kills its workers: name its rows, write its done record, answer with
    /// [`Event::Quarantined`], [`Event::Spared`] or, where that is too much, [`Event::Broken`].
    Quarantine(ArtifactId, u32, String),
    /// Give shards to a worker.
    Grant(WorkerId, Lease),
    /// Take a lease back.
    Revoke(WorkerId, LeaseId, String),
    /// Tell a member of a gang with whom it trains from now on.
    Begin(WorkerId, Generation),
    /// Tell a member that its generation is to end in order.
    Regroup(WorkerId, LeaseId, GenerationId),
    /// Tell a member that its generation has lost somebody, and why.
    Abort(WorkerId, LeaseId, GenerationId, String),
    /// Close a worker's session.
    Evict(WorkerId, String),
    /// A job has ended.
    Ended(JobId, JobState),
}
