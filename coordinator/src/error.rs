//! What can go wrong in a coordinator.

use proto::FailureClass;

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a coordinator refuses or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store or a job file.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Who may call cannot be settled.
    #[error(transparent)]
    Access(#[from] crate::access::AccessError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}; choose another address or stop what holds it")]
    Listen {
        /// The address.
        address: String,
        /// The operating system's word.
        reason: String,
    },
    /// Another coordinator has taken the lead.
    #[error(
        "another run uses this root (term {newer}, this one led term {own}) and this one stops: run it again when the \
         other has ended, what is done stays done"
    )]
    Deposed {
        /// Our term.
        own: u64,
        /// The term that beats it.
        newer: u64,
    },
    /// A control object is not what it should be.
    #[error("the control object {path} is damaged: {reason}; remove it to start the job anew")]
    Record {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such job.
    #[error("there is no job {job} under {root}{hint}")]
    NoJob {
        /// The id that was asked for.
        job: String,
        /// The root that was searched.
        root: String,
        /// Similar or existing ids.
        hint: String,
    },
    /// The gRPC server ended.
    #[error("the coordinator's server ended: {0}")]
    Server(String),
}

impl Error {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Data(e) if e.may_pass() => FailureClass::Retry,
            _ => FailureClass::Fatal,
        }
    }
}
