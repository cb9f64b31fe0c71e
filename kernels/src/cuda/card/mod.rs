//! A card through CUDA's libraries, all of them opened at run time.

pub(crate) use device::Card;

mod cache;
#[cfg(test)]
mod census;
mod compile;
mod device;
mod failure;
mod graph;
pub(super) mod inspect;
mod kernels;
pub(super) mod libraries;
mod products;
mod staging;
#[cfg(test)]
mod tests;
