//! The candidates of a training example: the answer and K - 1 wrong items.

use super::rng::Rng;
use crate::job::{CandidateOrder, Negatives};
use crate::{Error, Result};

/// The items of a user, sorted: what may not be a random negative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    sorted: Vec<u32>,
}

impl Seen {
    /// The items of a user's whole history, held-out ones included.
    #[must_use]
    pub fn new(items: &[u32]) -> Self {
        let mut sorted = items.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted }
    }

    /// Whether the user has the item.
    #[must_use]
    pub fn contains(&self, item: u32) -> bool {
        self.sorted.binary_search(&item).is_ok()
    }

    fn insert(&mut self, item: u32) {
        if let Err(at) = self.sorted.binary_search(&item) {
            self.sorted.insert(at, item);
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.sorted.len()).expect("a user has fewer than 2^32 items")
    }

    /// The item that has exactly `rank` unseen items before it and is unseen itself.
    fn unseen(&self, rank: u32) -> u32 {
        // Before the i-th seen item (from 0) lie sorted[i] - 1 - i unseen ones, a number that never falls with i.
        let (mut low, mut high) = (0, self.sorted.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.sorted[middle] as usize - 1 - middle <= rank as usize { low = middle + 1 } else { high = middle }
        }
        rank + 1 + u32::try_from(low).expect("a user has fewer than 2^32 items")
    }
}

/// A training example that needs candidates.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The number of the example, see [`TrainingPrefixes`](super::TrainingPrefixes).
    pub example: u64,
    /// The right answer.
    pub answer: u32,
    /// The user's whole history.
    pub seen: &'a Seen,
    /// What the retriever proposes for the prefix, best first; not read for random negatives.
    pub retrieved: &'a [u32],
}

/// The candidates of an example as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// K items.
    pub items: Vec<u32>,
    /// Where among them the answer stands, from 0.
    pub answer: usize,
}

/// How candidates are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Where wrong ones come from.
    pub negatives: Negatives,
    /// How they are shown.
    pub order: CandidateOrder,
    /// How many there are, with the answer.
    pub candidates: u32,
    /// Items of the catalogue, whose numbers begin with 1.
    pub catalogue_len: u32,
    /// The job's seed.
    pub seed: u64,
}

/// Chooses the candidates of an example, a pure function of (seed, epoch, example).
///
/// - `random`: any items that the user has not seen, at any time.
/// - `retrieved`: the retriever's best for the prefix without the answer. They may hold an item that the user will use later,
///   as the candidates of a real request may.
/// - `mixed`: the better half retrieved, the rest random.
///
/// Where the retriever proposes too few, random ones fill up. In the retriever's order they stand last, and an answer that it
/// has not proposed, or only behind as many as are shown, stands anywhere: at a place of its own it would give itself away.
///
/// # Errors
/// [`Error::TooFewItems`] if the catalogue has too few items that the user has not seen.
pub fn choose_candidates(recipe: &Recipe, epoch: u64, question: &Question<'_>) -> Result<Choice> {
    const PURPOSE: u64 = 0x6e_6567_6174_6976;
    let mut rng = Rng::keyed(&[PURPOSE, recipe.seed, epoch, question.example]);
    let mut items = recipe.wrong(&mut rng, question)?;
    let proposed = question.retrieved.iter().position(|item| *item == question.answer);
    let place = match (recipe.order, proposed.filter(|place| *place <= items.len())) {
        (CandidateOrder::Retrieved, Some(place)) => place,
        (CandidateOrder::Retrieved, None) => rng.below(items.len() as u64 + 1) as usize,
        (CandidateOrder::Shuffled, _) => items.len(),
    };
    items.insert(place, question.answer);
    if recipe.order == CandidateOrder::Shuffled {
        rng.shuffle(&mut items);
    }
    let answer = items.iter().position(|item| *item == question.answer).expect("the answer was put there above");
    Ok(Choice { items, answer })
}

impl Recipe {
    /// The wrong ones: the retriever's, best first, then random ones.
    fn wrong(&self, rng: &mut Rng, question: &Question<'_>) -> Result<Vec<u32>> {
        let Self { candidates, catalogue_len, .. } = *self;
        let wrong = candidates.saturating_sub(1) as usize;
        let from_retriever = match self.negatives {
            Negatives::Random => 0,
            Negatives::Retrieved => wrong,
            Negatives::Mixed => wrong.div_ceil(2),
        };
        let mut items = Vec::with_capacity(wrong + 1);
        for item in question.retrieved {
            if items.len() == from_retriever {
                break;
            }
            if *item != question.answer && !items.contains(item) {
                items.push(*item);
            }
        }
        let missing = wrong - items.len();
        if missing > 0 {
            let mut excluded = question.seen.clone();
            excluded.insert(question.answer);
            items.iter().for_each(|item| excluded.insert(*item));
            let unseen = catalogue_len.saturating_sub(excluded.len());
            if (unseen as usize) < missing {
                let unseen = unseen + u32::try_from(items.len()).unwrap_or(u32::MAX);
                return Err(Error::TooFewItems { candidates, unseen, catalogue: catalogue_len });
            }
            let ranks = distinct_below(rng, unseen, missing);
            items.extend(ranks.into_iter().map(|rank| excluded.unseen(rank)));
        }
        Ok(items)
    }
}

/// `count` distinct numbers below `n`, every set equally likely (Floyd's method: one draw for each, whatever `n`).
fn distinct_below(rng: &mut Rng, n: u32, count: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::with_capacity(count);
    let first = n - u32::try_from(count).expect("not more than n numbers are chosen");
    for last in first..n {
        let number = u32::try_from(rng.below(u64::from(last) + 1)).expect("below a u32 + 1");
        chosen.push(if chosen.contains(&number) { last } else { number });
    }
    chosen
}
