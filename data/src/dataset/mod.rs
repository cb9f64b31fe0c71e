//! A prepared dataset as models see it: items by number, histories by split.

mod catalogue;
mod holdout;
mod known;

#[cfg(test)]
mod tests;

pub use catalogue::Catalogue;
pub use holdout::{Holdout, training_items};
pub use known::KnownItems;
