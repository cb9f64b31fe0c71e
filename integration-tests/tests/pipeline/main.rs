//! The whole pipeline through the real binary: same rows whatever happens, no work twice, errors that say what to do.
#![allow(clippy::unwrap_used)]

mod adapters;
mod answers;
mod bad_input;
mod captions;
mod damage;
mod devices;
mod earlier;
mod emulated;
mod interruption;
mod lost_device;
mod planning;
mod publishing;
mod removal;
mod reuse;
mod since;
mod sweeps;
mod workers;
