//! The wire contract between coordinator, workers and clients, and its checked form.
//!
//! [`pb`] is generated from `proto/mllm4rec.proto`. The types beside it are what the rest of the project speaks: a missing
//! field, an unknown enum or a number that does not fit is refused here and named.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("mllm4rec.v1");
}

mod convert;
mod endpoint;
mod gang;
mod ids;
mod messages;
#[cfg(test)]
mod tests;

pub use convert::Invalid;
pub use endpoint::{ANSWER, Bearer, Connection, Endpoint, EndpointError, QUIET, REGISTRATION, Token, Wire};
pub use gang::{Broken, Generation, Peer, Ready};
pub use ids::{GenerationId, JobId, LeaseId, WorkerId};
pub use messages::{
    Claim, Committed, FailureClass, FromWorker, Grant, Info, JobState, JobStatus, Progress, Register, ShardCounts,
    StageState, StageStatus, ToWorker, Welcome, WorkerStatus,
};

/// Raised when the two ends of a session would misunderstand each other.
pub const PROTOCOL: u32 = 3;
/// A lease that commits nothing for so long may be shared with an idle worker.
pub const DUPLICATE_AFTER: std::time::Duration = std::time::Duration::from_secs(10);
