//! splitmix64: the same numbers in every language that has 64-bit integers.

/// A generator with one word of state.
pub(super) struct Rng {
    state: u64,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator of a numbered thing, which leaves the one of the seed alone.
    pub(super) fn keyed(seed: u64, number: u64) -> Self {
        let key = Self::new(seed).next();
        Self::new(key ^ number)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`: the high half, scaled.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }

    /// An index below `n`.
    pub(super) fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A number from `low` to `high`, in steps of 1 / 65,536 of the distance.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.below(65_536) as f32 / 65_536.0)
    }

    /// True in `p` of 100 cases.
    pub(super) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    /// Fisher-Yates, from the end.
    pub(super) fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            let j = self.index(i + 1);
            values.swap(i, j);
        }
    }

    /// `k` different elements: the first ones of a shuffled copy.
    pub(super) fn sample<T: Clone>(&mut self, values: &[T], k: usize) -> Vec<T> {
        let mut copy = values.to_vec();
        self.shuffle(&mut copy);
        copy.truncate(k);
        copy
    }
}
