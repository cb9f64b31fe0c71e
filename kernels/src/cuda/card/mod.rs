//! A card through CUDA's libraries, all of them opened at run time.

pub(crate) mod cache;
pub(crate) mod compile;
pub(crate) mod device;
pub mod libraries;
