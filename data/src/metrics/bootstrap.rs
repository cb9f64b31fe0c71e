//! Means over users and what they would have been with other users of the same kind.
//!
//! All that counts of a user is the rank, and of the ranks only those up to the deepest k. So a population is a
//! histogram, and a resample of n users with replacement is n draws from it: each costs one table look-up, however many
//! figures are taken from the result.

use super::{Metric, Rank};

/// How many resamples an interval rests on.
pub const RESAMPLES: usize = 1000;

/// Ends of the 95 % interval.
const PERCENTILES: (f64, f64) = (0.025, 0.975);

/// Users by rank.
pub(super) struct Histogram {
    /// Class of every user, in the order given: the rank, or 0 for a miss.
    classes: Vec<u32>,
    /// Users in each class.
    counts: Vec<u64>,
}

impl Histogram {
    /// Sorts users into ranks 1 to `deepest` and misses.
    pub(super) fn of(ranks: &[Rank], deepest: u32) -> Self {
        let class = |rank: &Rank| rank.filter(|r| (1..=deepest).contains(r)).unwrap_or(0);
        let classes: Vec<u32> = ranks.iter().map(class).collect();
        let mut counts = vec![0; deepest as usize + 1];
        classes.iter().for_each(|&c| counts[c as usize] += 1);
        Self { classes, counts }
    }

    pub(super) fn mean(&self, metric: Metric, k: u32) -> f64 {
        mean(&self.counts, metric, k)
    }

    /// The interval of each figure, all from the same resamples.
    pub(super) fn intervals(&self, keys: &[(Metric, u32)], seed: u64) -> Vec<(f64, f64)> {
        let mut means: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); keys.len()];
        for resample in 0..RESAMPLES {
            let counts = self.resample(seed, resample as u64);
            for (column, &(metric, k)) in means.iter_mut().zip(keys) {
                column.push(mean(&counts, metric, k));
            }
        }
        means.iter_mut().map(|column| interval(column)).collect()
    }

    /// As many users as there are, drawn with replacement.
    fn resample(&self, seed: u64, resample: u64) -> Vec<u64> {
        let key = mix(seed ^ mix(resample));
        let users = self.classes.len();
        let mut counts = vec![0; self.counts.len()];
        for draw in 0..users as u64 {
            counts[self.classes[below(mix(key.wrapping_add(draw)), users)] as usize] += 1;
        }
        counts
    }
}

/// Mean over the users of a histogram; 0 if there are none.
fn mean(counts: &[u64], metric: Metric, k: u32) -> f64 {
    let users: u64 = counts.iter().sum();
    if users == 0 {
        return 0.0;
    }
    // Rare before frequent makes no difference here: the order is fixed, and that is what the same bits need.
    let gains = counts.iter().zip(0u32..).skip(1).map(|(&n, rank)| n as f64 * metric.of(Some(rank), k));
    gains.sum::<f64>() / users as f64
}

fn interval(means: &mut [f64]) -> (f64, f64) {
    means.sort_by(f64::total_cmp);
    (percentile(means, PERCENTILES.0), percentile(means, PERCENTILES.1))
}

/// Linear interpolation between the two nearest of sorted values.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// A hash whose outputs for successive inputs pass as random (the finaliser of SplitMix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A random 64-bit number to an index below `n`.
fn below(random: u64, n: usize) -> usize {
    ((u128::from(random) * n as u128) >> 64) as usize
}
