//! What can go wrong in a worker.

use data::job::Stage;
use proto::{EndpointError, FailureClass};

use crate::decoders::DecodersError;
use crate::devices::Wish;

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same work may succeed later or elsewhere.
    Retry,
    /// It will not succeed until somebody changes something.
    Fatal,
    /// Nothing is wrong with the work: it was taken back, or its worker leaves.
    Stopped,
}

/// Why a task or a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage, tables, inputs.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Networks, checkpoints, prompts.
    #[error(transparent)]
    Model(model::Error),
    /// Tensors.
    #[error(transparent)]
    Kernels(#[from] kernels::Error),
    /// An input that the stage needs was not planned.
    #[error("stage {stage} has no input `{role}`; was the artifact's spec changed by hand?")]
    Input {
        /// The stage.
        stage: Stage,
        /// The role of the missing input.
        role: String,
    },
    /// The coordinator sent something that this build does not know.
    #[error("the coordinator granted {what}, which this build does not know: run the same version on both sides")]
    Unknown {
        /// What it sent.
        what: String,
    },
    /// Processes that decode pictures.
    #[error(transparent)]
    Decoders(#[from] DecodersError),
    /// There was not enough time, or the byte budget was too small, for all downloads.
    #[error(
        "{left} pictures are not downloaded yet, the budget of this run ({minutes} minutes, 200 GiB) is used up: run the \
         same job again, what is there stays; or raise captions.fetch_minutes"
    )]
    FetchBudget {
        /// Pictures that were not asked for.
        left: usize,
        /// The budget.
        minutes: u32,
    },
    /// The ranker is worse than the retriever and the job forbids that.
    #[error(
        "the ranker's validation NDCG@10 {ranker:.4} is below that of the retriever's own order, {retriever:.4}, and \
         ranker.require_lift is set: train longer, use a stronger ranker.base or negatives = \"mixed\", or unset it"
    )]
    NoLift {
        /// The ranker's figure.
        ranker: f64,
        /// The retriever's.
        retriever: f64,
    },
    /// Training diverged.
    #[error("{stage}: the loss is {loss} at step {step}: lower {key} (now {learning_rate})")]
    Diverged {
        /// The stage.
        stage: Stage,
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
        /// The key of the learning rate.
        key: &'static str,
        /// Its value.
        learning_rate: f64,
    },
    /// Prompts may become longer than the base takes.
    #[error(
        "ranker.max_prompt_tokens is {asked}, but {base} takes prompts of {room} tokens at most: lower it to that or less"
    )]
    LongPrompts {
        /// The folder of the base.
        base: String,
        /// The longest prompt of the job.
        asked: usize,
        /// The longest that the base takes with an answer behind it.
        room: usize,
    },
    /// The retriever is to propose more items than there are.
    #[error("retriever.candidates is {candidates}, but the catalogue has {items} items: lower it")]
    TooManyCandidates {
        /// Candidates per user.
        candidates: u32,
        /// Items in the catalogue.
        items: u32,
    },
    /// Two tables of the same users do not belong together.
    #[error(
        "{what}: was a folder changed by hand? Remove the younger table's folder under tables/ and _control/ to make it anew"
    )]
    Misfit {
        /// Which ones, and how they differ.
        what: String,
    },
    /// The device that was asked for cannot be had.
    #[error("--devices {wish}: {reason}")]
    NoDevice {
        /// What was asked for.
        wish: Wish,
        /// What is missing, and how to get it.
        reason: String,
    },
    /// The device failed and cannot be opened again by this process.
    #[error("{0}")]
    DeviceLost(String),
    /// The job that this worker was for did not succeed.
    #[error("job {job}, which this worker was for, did not succeed: {reason}")]
    JobEnded {
        /// The job.
        job: String,
        /// Why.
        reason: String,
        /// Whether the same job may succeed later.
        may_pass: bool,
    },
    /// There is nobody or nothing to work on.
    #[error("{stage}: {what}")]
    Nothing {
        /// The stage.
        stage: Stage,
        /// What is missing and how to get it.
        what: String,
    },
    /// A checkpoint is not what was written.
    #[error("the checkpoint {folder} is damaged: {what}")]
    Damaged {
        /// Where it lies.
        folder: String,
        /// What is wrong with it.
        what: String,
    },
    /// This worker cannot train together with others as it is.
    #[error("{0}")]
    Gang(String),
    /// This worker is not of the gang that it came to.
    #[error("put out of the gang: {0}")]
    PutOut(String),
    /// The device's thread says nothing any more, and cannot be stopped: only the end of the process helps.
    #[error("the device hangs: {0}; this worker ends, start it again")]
    Hangs(String),
    /// The lease was revoked or the worker is leaving.
    #[error("stopped: {0}")]
    Stopped(String),
    /// A task panicked: a fault of this program.
    #[error("the task failed unexpectedly: {0}; please report this")]
    Panicked(String),
    /// The coordinator does not take this worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The coordinator cannot be spoken to until somebody changes something.
    #[error(transparent)]
    Endpoint(EndpointError),
    /// This device has no room for what was decided for all; others have.
    #[error("{0}")]
    NoRoom(String),
    /// The coordinator cannot be reached.
    #[error("cannot reach the coordinator at {address}: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Data(e) if e.may_pass() => Class::Retry,
            // Work that reaches a worker behind the loss of its device was never begun.
            Self::Stopped(_) | Self::DeviceLost(_) => Class::Stopped,
            e if e.lost_device() => Class::Retry,
            Self::Kernels(kernels::Error::Gang(_) | kernels::Error::Stuck(_))
            | Self::Gang(_)
            | Self::PutOut(_)
            | Self::Hangs(_)
            | Self::NoRoom(_) => Class::Retry,
            Self::Panicked(_) | Self::Unreachable { .. } | Self::Decoders(DecodersError::Start { .. }) => Class::Retry,
            _ => Class::Fatal,
        }
    }

    /// Whether the device was lost on the way; a fresh one may do the same work.
    pub(crate) fn lost_device(&self) -> bool {
        matches!(self, Self::Kernels(e) if e.is_lost())
    }
}

impl From<EndpointError> for Error {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Unreachable { url, reason } => Self::Unreachable { address: url, reason },
            lasting => Self::Endpoint(lasting),
        }
    }
}

impl From<Class> for FailureClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Retry => Self::Retry,
            Class::Fatal => Self::Fatal,
            Class::Stopped => Self::Returned,
        }
    }
}

/// Tensors fail the same way wherever they are used.
impl From<model::Error> for Error {
    fn from(error: model::Error) -> Self {
        match error {
            model::Error::Kernel(error) => Self::Kernels(error),
            error => Self::Model(error),
        }
    }
}
