//! The order of the examples of an epoch, computed instead of stored.

use super::rng::{Rng, mix};

/// Rounds of the network; four are enough for a good cipher of this form, small domains profit from more.
const ROUNDS: usize = 8;

/// A seeded permutation of 0..n, another one for every epoch.
///
/// A balanced Feistel network over the next even number of bits, walked until the value is below n (at most four steps on
/// average). Any position is computed on its own, in constant memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of 0..n for an epoch.
    #[must_use]
    pub fn new(n: u64, seed: u64, epoch: u64) -> Self {
        const PURPOSE: u64 = 0x70_6572_6d75_7465;
        let mut rng = Rng::keyed(&[PURPOSE, seed, epoch, n]);
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The value at a position.
    ///
    /// # Panics
    /// If `position` is not below [`Self::len`].
    #[must_use]
    pub fn at(&self, position: u64) -> u64 {
        assert!(position < self.n, "position {position} of a permutation of {}", self.n);
        let mut value = self.encrypt(position);
        // The network permutes a domain larger than 0..n: the cycle of a value below n comes back below n.
        while value >= self.n {
            value = self.encrypt(value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}
