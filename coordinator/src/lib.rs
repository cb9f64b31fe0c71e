//! Plans jobs, cuts them into shards, leases work to workers and tracks progress.
//!
//! Decisions are in [`core`], which does no I/O; the shell around it reads and writes the object store and speaks gRPC.
//! Nothing is remembered that cannot be read back from the store. This crate knows no tensors and no models.

mod coordinator;
pub mod core;
mod descriptors;
mod earlier;
mod error;
mod inbox;
mod inputs;
mod jobs;
pub mod journal;
mod leadership;
mod opening;
pub mod plan;
pub mod records;
pub mod report;
mod rpc;
mod shell;
pub mod submissions;

pub use coordinator::{Coordinator, Options};
pub use descriptors::allow_many_connections;
pub use earlier::Earlier;
pub use error::{Error, Result};
pub use inputs::{InputFiles, check_layout};
