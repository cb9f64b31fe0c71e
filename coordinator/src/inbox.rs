//! What the coordinator's loop takes in: events for the core, and wishes of clients and workers with a place for the answer.

use data::job::Job;
use proto::{FromWorker, Info, JobId, JobStatus, Register, ToWorker, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Result;
use crate::core::Event;
use crate::plan::PlannedStage;
use crate::submissions::{Round, Submitted};

/// What reaches the loop.
pub(crate) enum Input {
    Event(Event),
    Submit(Box<Job>, Reply<(JobId, bool)>),
    Resume(JobId, Reply<(JobId, bool)>),
    /// A job is to be noted as wanted, unless its end is being noted: that has to come first.
    Admit(JobId, oneshot::Sender<()>),
    Planned(Box<Submission>),
    Join(Register, mpsc::Sender<ToWorker>, oneshot::Sender<WorkerId>),
    Watch(JobId, Watcher),
    List(oneshot::Sender<Vec<JobStatus>>),
    Info(oneshot::Sender<Info>),
    /// The report of a job whose stages are all done is written, or cannot be.
    Reported(JobId, Result<()>),
    /// The end of a job is in the store, as that of a round, as far as it could be.
    Settled(JobId, Option<Round>),
}

/// Where the status of a job goes, if there is such a job.
pub(crate) type Watcher = oneshot::Sender<Option<watch::Receiver<JobStatus>>>;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A job whose stages are planned and looked up in the store.
pub(crate) struct Submission {
    pub(crate) id: JobId,
    pub(crate) job: Box<Job>,
    pub(crate) stages: Vec<PlannedStage>,
    pub(crate) complete: Vec<bool>,
    /// The round that the store has of it, where the coordinator keeps its jobs.
    pub(crate) round: Option<Round>,
    /// The record of that round.
    pub(crate) submitted: Option<Submitted>,
}

/// What a worker's stream brings.
pub(crate) fn said(worker: WorkerId, message: FromWorker) -> Input {
    Input::Event(Event::Said(worker, message))
}
