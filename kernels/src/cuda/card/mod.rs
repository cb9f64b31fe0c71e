//! A card through CUDA's libraries, all of them opened at run time.

pub(crate) mod compile;
pub mod libraries;
