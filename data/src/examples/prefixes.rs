//! The training prefixes: one example for every item of a training sequence but the first.

/// One training example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The user, counted in the order of the histories table.
    pub user: usize,
    /// Length of the prefix, from 2; its last item is the answer.
    pub length: usize,
}

impl Prefix {
    /// What the ranker sees and what it should answer.
    ///
    /// # Panics
    /// If `training` is shorter than the prefix: it must be the user's own.
    #[must_use]
    pub fn view<'a, T>(&self, training: &'a [T]) -> (&'a [T], &'a T) {
        (&training[..self.length - 1], &training[self.length - 1])
    }
}

/// All prefixes of length two or more of all users' training sequences, numbered in the order of users, then of length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingPrefixes {
    /// `ends[u]`: examples of the users up to and including `u`.
    ends: Vec<u64>,
}

impl TrainingPrefixes {
    /// Numbers the examples of users with training sequences of these lengths.
    #[must_use]
    pub fn new(training_lengths: impl IntoIterator<Item = usize>) -> Self {
        let ends = training_lengths.into_iter().scan(0_u64, |total, length| {
            *total += length.saturating_sub(1) as u64;
            Some(*total)
        });
        Self { ends: ends.collect() }
    }

    /// How many examples there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example of a number.
    ///
    /// # Panics
    /// If `example` is not below [`Self::len`].
    #[must_use]
    pub fn at(&self, example: u64) -> Prefix {
        assert!(example < self.len(), "example {example} of {}", self.len());
        let user = self.ends.partition_point(|end| *end <= example);
        let first = user.checked_sub(1).map_or(0, |before| self.ends[before]);
        Prefix { user, length: (example - first) as usize + 2 }
    }
}
