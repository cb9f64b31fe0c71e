//! What the ranker is trained on.

use super::network::Targets;
use crate::{Error, Result};

/// One tokenised training example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The input tokens.
    pub ids: Vec<u32>,
    /// Positions of `ids` and the token that is to follow each.
    pub labels: Vec<(u32, u32)>,
    /// Names the example for dropout, for example made from epoch and number: never its place in a batch.
    pub key: u64,
}

impl Example {
    /// The last `answer` tokens of a text are trained, the others are given. The last token is a label only.
    ///
    /// # Errors
    /// [`Error::Input`] if nothing is left to predict them from.
    pub fn from_text(ids: &[u32], answer: usize, key: u64) -> Result<Self> {
        if answer == 0 || ids.len() <= answer {
            return Err(Error::Input(format!("an example of {} tokens cannot train its last {answer}", ids.len())));
        }
        let first = ids.len() - answer;
        let labels = (first..ids.len()).map(|at| (at as u32 - 1, ids[at])).collect();
        Ok(Self { ids: ids[..ids.len() - 1].to_vec(), labels, key })
    }
}

/// The targets of packed examples: every example weighs `1 / global_examples`, cut evenly over its labels.
pub(crate) fn targets(examples: &[Example], global_examples: usize) -> Result<Targets> {
    let mut targets = Targets { rows: Vec::new(), labels: Vec::new(), weights: Vec::new() };
    let mut start = 0;
    for example in examples {
        let share = 1.0 / (example.labels.len() as f64 * global_examples as f64);
        let mut last = None;
        for &(position, label) in &example.labels {
            if position as usize >= example.ids.len() || last.is_some_and(|l| l >= position) {
                let len = example.ids.len();
                return Err(Error::Input(format!("label positions must ascend below {len}, found {position}")));
            }
            last = Some(position);
            targets.rows.push(start + position);
            targets.labels.push(label);
            targets.weights.push(share as f32);
        }
        start += example.ids.len() as u32;
    }
    Ok(targets)
}

/// Cuts a list into runs whose sizes add up to at most `limit`; an item larger than that has a run of its own.
pub(crate) fn runs(sizes: impl Iterator<Item = usize>, limit: usize) -> Vec<std::ops::Range<usize>> {
    let (mut runs, mut start, mut total) = (Vec::new(), 0, 0);
    let mut end = 0;
    for (i, size) in sizes.enumerate() {
        if i > start && total + size > limit {
            runs.push(start..i);
            (start, total) = (i, 0);
        }
        total += size;
        end = i + 1;
    }
    if end > start {
        runs.push(start..end);
    }
    runs
}

/// Packs items into as few packs of at most `limit` as first-fit-decreasing finds; an item larger than that has a pack of
/// its own. Items of like size come together, the largest first.
pub(crate) fn packs(items: &[usize], size: impl Fn(&usize) -> usize, limit: usize) -> Vec<Vec<usize>> {
    let mut items = items.to_vec();
    items.sort_by_key(|item| (std::cmp::Reverse(size(item)), *item));
    let mut packs: Vec<(usize, Vec<usize>)> = Vec::new();
    for item in items {
        let size = size(&item);
        match packs.iter_mut().find(|(total, _)| total + size <= limit) {
            Some((total, pack)) => {
                *total += size;
                pack.push(item);
            }
            None => packs.push((size, vec![item])),
        }
    }
    packs.into_iter().map(|(_, pack)| pack).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_trained_and_the_end_is_no_input() {
        let example = Example::from_text(&[1, 10, 11, 20, 2], 2, 7).unwrap();
        assert_eq!(example.ids, [1, 10, 11, 20]);
        assert_eq!(example.labels, [(2, 20), (3, 2)]);
        assert!(Example::from_text(&[1, 2], 2, 0).is_err());
    }

    #[test]
    fn every_example_weighs_the_same() {
        let examples =
            [Example::from_text(&[1, 5, 6, 2], 2, 0).unwrap(), Example::from_text(&[1, 5, 9], 1, 1).unwrap()];
        let targets = targets(&examples, 2).unwrap();
        assert_eq!(targets.rows, [1, 2, 4]);
        assert_eq!(targets.labels, [6, 2, 9]);
        assert_eq!(targets.weights, [0.25, 0.25, 0.5]);
    }

    #[test]
    fn packs_are_full() {
        let sizes = [3, 5, 2, 9, 1, 4];
        assert_eq!(packs(&[0, 1, 2, 3, 4, 5], |i| sizes[*i], 6), [vec![3], vec![1, 4], vec![5, 2], vec![0]]);
        assert!(packs(&[], |_| 1, 6).is_empty());
    }

    #[test]
    fn runs_keep_the_limit_where_they_can() {
        assert_eq!(runs([3, 3, 3, 9, 1].into_iter(), 6), [0..2, 2..3, 3..4, 4..5]);
        assert!(runs(std::iter::empty(), 6).is_empty());
    }
}
