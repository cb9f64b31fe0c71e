//! Runs the tasks of a job on a device.
//!
//! Tokio does network, storage and timers; one plain thread owns the device and runs one task at a time. A worker keeps
//! nothing that counts: what a task makes goes to the object store, and its done record says so.

mod ahead;
mod asking;
mod calibration;
mod checkpoint;
mod context;
pub mod decoders;
mod desk;
mod device;
pub mod devices;
mod doubt;
mod early_stopping;
mod error;
mod gang;
pub mod hand;
mod kept;
mod observer;
pub mod planning;
mod population;
mod ranking;
mod retrieval;
mod session;
mod settings;
mod since;
mod snapshot;
mod tasks;
mod training;

pub use error::{Class, Error, Result};
pub use gang::host_and_port;
pub use observer::Observer;
pub use ranking::check_ranker;
pub use session::{Options, run};
pub use tasks::check_captioner;
