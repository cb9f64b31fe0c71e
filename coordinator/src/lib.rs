//! Plans jobs, cuts them into shards, leases work to workers and tracks progress.
//!
//! Decisions are in [`core`], which does no I/O; the shell around it reads and writes the object store and speaks gRPC.
//! Nothing is remembered that cannot be read back from the store. This crate knows no tensors and no models.

mod coordinator;
pub mod core;
mod error;
mod inbox;
mod inputs;
mod jobs;
pub mod journal;
pub mod leadership;
pub mod opening;
pub mod plan;
pub mod records;
pub mod report;
mod rpc;
mod shell;
pub mod submissions;

pub use coordinator::{Coordinator, Options};
pub use error::{Error, Result};
pub use inputs::{InputFiles, check_layout};
