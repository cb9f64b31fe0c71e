//! Training examples of the ranker: which there are, in which order, with which wrong candidates.
//!
//! Everything here is a pure function of (seed, epoch, example): no worker, batch or world size is known, so that any of them
//! may change without changing an example.

mod negatives;
mod permutation;
mod prefixes;
mod rng;
mod slices;

#[cfg(test)]
mod tests;

pub use negatives::{Choice, Question, Recipe, Seen, choose_candidates};
pub use permutation::Permutation;
pub use prefixes::{Prefix, TrainingPrefixes};
pub use rng::Rng;
pub use slices::deal;
