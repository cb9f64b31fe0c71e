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
    /// More shards kill their workers than the job can spare.
    #[error(
        "{reason}; with it {rows} of {all} rows would be missing, more than `limits.max_rejected` allows: look at the \
         workers' logs (memory?), or raise the limit and submit the job again"
    )]
    TooManyAside {
        /// What happened to the last shard.
        reason: String,
        /// Rows that would be missing.
        rows: u64,
        /// Rows in all.
        all: u64,
    },
    /// The job runs, and what is submitted differs in a key that no stage depends on.
    #[error(
        "job {job} runs already, with another `{key}`: wait for its end or cancel it, then submit this file again; what is \
         done stays done"
    )]
    RunsOtherwise {
        /// The job.
        job: String,
        /// The key.
        key: &'static str,
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
    /// A key names an earlier job that cannot be used.
    #[error(
        "{key}: {reason}; a job is named by its id under the same `output.root` (`mllm4rec outputs` lists them), a model \
         from elsewhere by its folder"
    )]
    Earlier {
        /// The key of the job file.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The job was removed.
    #[error(
        "job {job} was removed; submit its file again for a new job (its id will end in a number, such as `{job}.2`)"
    )]
    Removed {
        /// The job.
        job: String,
    },
    /// A job that somebody works on was to be removed.
    #[error("job {job} is wanted: cancel it or wait for its end, then remove it (both need a coordinator)")]
    Active {
        /// The job.
        job: String,
    },
    /// A job needs what is being removed.
    #[error(
        "{artifact} is being removed by `mllm4rec rm` or `gc`: submit the job again in a moment; after a removal that was cut \
         off, `mllm4rec gc` clears the way"
    )]
    BeingRemoved {
        /// The artifact.
        artifact: String,
    },
    /// A finished table cannot be copied to its place.
    #[error(
        "cannot publish to {folder}: {source}; the job's own tables are finished: mend this and submit the job again"
    )]
    Publish {
        /// The place.
        folder: String,
        /// What is wrong there.
        source: data::Error,
    },
    /// A job wants its tables copied to where the coordinator keeps its own.
    #[error(
        "output.publish: {folder} is where the coordinator keeps its own tables (its root is {root}): choose a folder of its own"
    )]
    PublishIntoRoot {
        /// The place.
        folder: String,
        /// The root.
        root: String,
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
            Self::Data(e) | Self::Publish { source: e, .. } if e.may_pass() => FailureClass::Retry,
            Self::BeingRemoved { .. } | Self::Active { .. } | Self::RunsOtherwise { .. } => FailureClass::Retry,
            _ => FailureClass::Fatal,
        }
    }
}
