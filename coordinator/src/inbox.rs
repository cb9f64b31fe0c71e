//! What the coordinator's loop takes in: events for the core, and wishes of clients and workers with a place for the answer.

use data::job::Job;
use proto::{FromWorker, JobId, JobStatus, ToWorker, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Result;
use crate::core::Event;
use crate::plan::JobPlan;

/// What reaches the loop.
pub(crate) enum Input {
    Event(Event),
    Submit(Box<Job>, oneshot::Sender<Result<(JobId, bool)>>),
    Planned(Box<Submission>),
    Join(mpsc::Sender<ToWorker>, oneshot::Sender<WorkerId>),
    Watch(JobId, oneshot::Sender<Option<watch::Receiver<JobStatus>>>),
    List(oneshot::Sender<Vec<JobStatus>>),
    Reported(JobId, Result<()>),
}

/// A job whose stages are planned and looked up in the store.
pub(crate) struct Submission {
    pub(crate) job: Box<Job>,
    pub(crate) plan: JobPlan,
    pub(crate) complete: Vec<bool>,
    pub(crate) reply: oneshot::Sender<Result<(JobId, bool)>>,
}

/// What a worker's stream brings.
pub(crate) fn said(worker: WorkerId, message: FromWorker) -> Input {
    Input::Event(Event::Said(worker, message))
}
