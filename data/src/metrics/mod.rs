//! How well held-out items are ranked.
//!
//! Every user has one held-out item and one *rank*: its place in a list, from 1, or none where it is not in the list at
//! all. From the ranks follow Recall, MRR and NDCG at any k, as means **over users**, each with a 95 % bootstrap interval
//! over users.
//!
//! A ranker sees only the retriever's candidates. Measured on the **subset** of users whose held-out item is among them it
//! says how good the ranker is; **overall**, where every other user is a miss, it says what users get:
//!
//! ```
//! use mllm4rec_data::metrics::{measure, retrieved, within};
//! let retriever = [Some(1), Some(7), Some(900)];         // ranks in the whole catalogue
//! let order = within(&retriever, 20);                    // the retriever's order of its 20 candidates
//! let ranker = [Some(2), Some(1), None];                 // ranks after the ranker, a miss stays a miss
//! let overall = measure(&ranker, &[1, 5, 10], 42);
//! let subset = measure(&retrieved(&ranker), &[1, 5, 10], 42);
//! assert_eq!((overall[0].users, subset[0].users), (3, 2));
//! assert_eq!(retrieved(&order).len(), 2);
//! ```

mod bootstrap;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use bootstrap::RESAMPLES;

use crate::job::Split;
use crate::tables::MetricRow;

/// Place of a user's held-out item, from 1; none where it is not in the list.
pub type Rank = Option<u32>;

/// What is measured. One relevant item a user, so that precision and average precision say nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of users whose item is among the first k.
    Recall,
    /// Mean of 1 / rank, 0 beyond k.
    Mrr,
    /// Mean of 1 / log2(rank + 1), 0 beyond k.
    Ndcg,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Recall, Self::Mrr, Self::Ndcg];

    /// The name in tables and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recall => "recall",
            Self::Mrr => "mrr",
            Self::Ndcg => "ndcg",
        }
    }

    /// The figure of one user.
    #[must_use]
    pub fn of(self, rank: Rank, k: u32) -> f64 {
        match rank {
            Some(rank) if rank <= k => self.gain(rank),
            _ => 0.0,
        }
    }

    /// What a hit at a rank is worth.
    fn gain(self, rank: u32) -> f64 {
        match self {
            Self::Recall => 1.0,
            Self::Mrr => 1.0 / f64::from(rank),
            Self::Ndcg => 1.0 / (f64::from(rank) + 1.0).log2(),
        }
    }
}

/// A mean over users with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The metric.
    pub metric: Metric,
    /// The length of the list that counts.
    pub k: u32,
    /// Mean over the users; 0 if there are none.
    pub value: f64,
    /// The 2.5th percentile of the mean over resampled users.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
    /// How many users.
    pub users: u64,
}

impl Figure {
    /// The name in `metrics.json`: `recall@10`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.metric.as_str(), self.k)
    }

    /// The row in the metrics table.
    #[must_use]
    pub fn row(&self, split: Split, population: &str, system: &str) -> MetricRow {
        MetricRow {
            split,
            population: population.to_owned(),
            system: system.to_owned(),
            metric: self.metric.as_str().to_owned(),
            k: self.k,
            value: self.value,
            low: self.low,
            high: self.high,
            users: self.users,
        }
    }
}

/// Measures every metric at every k, in that order. The same ranks and seed give the same bits.
#[must_use]
pub fn measure(ranks: &[Rank], ks: &[u32], seed: u64) -> Vec<Figure> {
    let deepest = ks.iter().copied().max().unwrap_or(0);
    let histogram = bootstrap::Histogram::of(ranks, deepest);
    let keys: Vec<(Metric, u32)> = Metric::ALL.iter().flat_map(|&m| ks.iter().map(move |&k| (m, k))).collect();
    let intervals = histogram.intervals(&keys, seed);
    let figure = |(&(metric, k), (low, high)): (&(Metric, u32), (f64, f64))| Figure {
        metric,
        k,
        value: histogram.mean(metric, k),
        low,
        high,
        users: ranks.len() as u64,
    };
    keys.iter().zip(intervals).map(figure).collect()
}

/// Ranks in a list that ends after `k` items: what is beyond is not in the list.
#[must_use]
pub fn within(ranks: &[Rank], k: u32) -> Vec<Rank> {
    ranks.iter().map(|rank| rank.filter(|&r| r <= k)).collect()
}

/// The ranks of the users whose item is in the list: the valid retrieval subset.
#[must_use]
pub fn retrieved(ranks: &[Rank]) -> Vec<Rank> {
    ranks.iter().copied().filter(Option::is_some).collect()
}

/// The rank of an item in a list that is best first.
#[must_use]
pub fn rank_of<S: AsRef<str>>(items: &[S], target: &str) -> Rank {
    let place = items.iter().position(|item| item.as_ref() == target)?;
    u32::try_from(place + 1).ok()
}
