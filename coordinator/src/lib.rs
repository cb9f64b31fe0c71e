//! Plans jobs, cuts them into shards, leases work to workers and tracks progress.
//!
//! Decisions are in [`core`], which does no I/O; the shell around it reads and writes the object store and speaks gRPC.
//! Nothing is remembered that cannot be read back from the store. This crate knows no tensors and no models.

pub mod access;
mod admission;
mod bound;
mod coordinator;
pub mod core;
mod descriptors;
mod earlier;
mod ended;
mod error;
#[cfg(test)]
mod fixtures;
mod inbox;
mod inputs;
mod jobs;
pub mod journal;
pub mod leadership;
mod notes;
mod observer;
pub mod opening;
pub mod plan;
pub mod publish;
pub mod quarantine;
pub mod records;
mod remembered;
pub mod removal;
pub mod report;
mod rpc;
mod shell;
mod stages;
pub mod submissions;

pub use coordinator::{Coordinator, Options};
pub use descriptors::allow_many_connections;
pub use earlier::Earlier;
pub use error::{Error, Result};
pub use inputs::{InputFiles, base_digests, check_layout, differing_file};
pub use observer::Observer;
pub use remembered::remembered;
