//! How many users, items and interactions there were, and where the others went.

/// The size of a set of interactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Users with at least one interaction.
    pub users: u64,
    /// Items with at least one interaction.
    pub items: u64,
    /// Interactions.
    pub interactions: u64,
}

/// What preparation kept and what it dropped, in the order in which it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users who stay.
    pub users: u64,
    /// Items that stay.
    pub items: u64,
    /// Interactions that stay.
    pub interactions: u64,
    /// Interactions rated lower than `dataset.min_rating`.
    pub below_min_rating: u64,
    /// Good interactions that were read, those below the rating left out.
    pub rows: u64,
    /// Interactions with items that the dataset has no title for.
    pub without_title: u64,
    /// Interactions of a user with an item that the user had used earlier.
    pub duplicates: u64,
    /// What the k-core began with.
    pub before: Population,
    /// Users whom the k-core left with fewer than three items, too few to split.
    pub short_users: u64,
    /// Items that stay without a title of their own; their id stands in for it.
    pub untitled_items: u64,
}

impl Counts {
    /// Users whom the k-core or a too short history cost.
    #[must_use]
    pub fn dropped_users(&self) -> u64 {
        self.before.users - self.users
    }

    /// Items that the k-core cost.
    #[must_use]
    pub fn dropped_items(&self) -> u64 {
        self.before.items - self.items
    }
}
