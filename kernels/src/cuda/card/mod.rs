//! A card through CUDA's libraries, all of them opened at run time.

pub(crate) use device::Card;

mod cache;
#[cfg(test)]
mod census;
mod compile;
mod device;
pub(super) mod inspect;
mod libraries;
mod products;
#[cfg(test)]
mod tests;
