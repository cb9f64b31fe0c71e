//! Leave-one-out: what a model may see of a user, and what it is asked for.

use crate::job::Split;

/// One user under one split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdout<'a, T> {
    /// What the model may see, in time order.
    pub history: &'a [T],
    /// What it should predict; `None` where nothing is held out.
    pub target: Option<&'a T>,
}

impl<'a, T> Holdout<'a, T> {
    /// Splits the items of a user: the last one is the test item, the one before the validation item, the rest is for
    /// training. `all` sees everything and holds nothing out, `train` sees the training items only.
    ///
    /// A user with fewer items than a split holds out has an empty history there; preparation keeps users with at least three.
    #[must_use]
    pub fn of(items: &'a [T], split: Split) -> Self {
        let held = match split {
            Split::Test => 1,
            Split::Validation => 2,
            Split::All => return Self { history: items, target: None },
            Split::Train => return Self { history: training_items(items), target: None },
        };
        match items.len().checked_sub(held) {
            Some(at) => Self { history: &items[..at], target: Some(&items[at]) },
            None => Self { history: &[], target: None },
        }
    }
}

/// The items of a user that models are trained on: all but the last two.
#[must_use]
pub fn training_items<T>(items: &[T]) -> &[T] {
    &items[..items.len().saturating_sub(2)]
}
