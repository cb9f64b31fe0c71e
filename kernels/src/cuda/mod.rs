//! Devices with memory of their own: a card, or the emulator that tests put in its place
//! ([decision 6](../../../docs/decisions/0006-one-device-code-for-card-and-emulator.md)).

mod card;
mod driver;
mod emulator;

pub(crate) use driver::{Address, Arg, Driver, Geometry, Source};

/// What every kernel begins with: types, conversions and primitives that need no header of CUDA.
pub(crate) const PRELUDE: &str = include_str!("prelude.cuh");
