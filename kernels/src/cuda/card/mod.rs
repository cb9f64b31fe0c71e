//! A card through CUDA's libraries, all of them opened at run time.

mod cache;
mod compile;
mod device;
mod libraries;
#[cfg(test)]
mod tests;
