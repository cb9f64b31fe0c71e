//! A prepared dataset as models see it: items by number, histories by split.

mod catalogue;
mod holdout;

#[cfg(test)]
mod tests;

pub use catalogue::Catalogue;
pub use holdout::{Holdout, training_items};
