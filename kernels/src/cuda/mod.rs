//! Devices with memory of their own: a card, or the emulator that tests put in its place
//! ([decision 6](../../../docs/decisions/0006-one-device-code-for-card-and-emulator.md)).
//!
//! An operation asks a [`Stream`], which asks a [`recorder`], which asks a [`Driver`].

mod buffer;
mod card;
mod driver;
mod emulator;
mod operation;
mod product;
mod recorder;
pub(crate) mod rows;
mod stream;

pub(crate) use buffer::{Array, Buffer, Plain};
pub(crate) use card::inspect::{cards, driver_version, examine, libraries, nccl, seen};
pub(crate) use card::libraries::misnamed;
pub(crate) use driver::{Address, Arg, Driver, Geometry, Graph, RawStream, SharedLimit, Source};
pub(crate) use operation::Operation;
pub(crate) use product::{Matrix, Product};
pub use recorder::Recording;
pub(crate) use stream::Stream;

use crate::Result;

/// The card of a number.
pub(crate) fn card(number: usize) -> Result<Stream> {
    Ok(Stream::new(std::sync::Arc::new(card::Card::open(number)?)))
}

/// The emulator, for what is made of operations that were proven on [`prover`].
pub(crate) fn emulator() -> Stream {
    Stream::new(std::sync::Arc::new(emulator::Emulator::new().in_one_order()))
}

/// The emulator that is lost with the launch after so many.
pub(crate) fn mortal(launches: usize) -> Stream {
    let device = emulator::Emulator::new().in_one_order();
    Stream::new(std::sync::Arc::new(emulator::Mortal::new(device, launches)))
}

/// The emulator with every launch in two orders.
#[cfg(test)]
pub(crate) fn prover() -> Stream {
    Stream::new(std::sync::Arc::new(emulator::Emulator::new()))
}

/// An emulator that has so much memory.
pub(crate) fn emulator_of(bytes: usize) -> Stream {
    Stream::new(std::sync::Arc::new(emulator::Emulator::with_memory(bytes)))
}

/// A text of C++ as a library of the host, for what stands in for a library of CUDA in tests.
#[cfg(test)]
pub(crate) use emulator::library_of;

/// What every kernel begins with: types, conversions and primitives that need no header of CUDA, and what works on rows.
pub(crate) const PRELUDE: &str = concat!(include_str!("prelude.cuh"), include_str!("rows.cuh"));
