//! The split `train`: candidates for prefixes of training sequences, from which the ranker draws its negatives.
//!
//! A user can have hundreds of prefixes, so the rows of a shard may be too many for one part. Every shard is written as the
//! same number of parts, which follows from the histories and the job alone: the names of the parts of a table say whether one is
//! missing, and attempts collide.

use std::collections::BTreeMap;

use data::artifact::MAX_PART_BYTES;
use data::dataset::training_items;
use data::examples::{Permutation, TrainingPrefixes};
use data::job::Job;

use super::Retrieval;
use crate::Result;
use crate::context::{Context, Output};
use crate::population::{Population, User};
use crate::retrieval::retrieve_prefixes;

/// A part is planned to be no larger than this before it is compressed.
const PART_BYTES: usize = MAX_PART_BYTES as usize / 2;

/// What the ranker's training will see.
pub(super) struct Wanted {
    /// Prefix lengths by user.
    lengths: BTreeMap<String, Vec<usize>>,
    /// Parts of every shard.
    pieces: u32,
}

impl Wanted {
    /// Reads the histories of all shards: the examples are drawn from all users.
    pub(super) fn of(cx: &Context, population: &Population) -> Result<Self> {
        let mut users = Vec::new();
        let mut ends = Vec::new();
        for shard in 0..population.shards() {
            cx.check()?;
            users.extend(population.shard(cx, shard)?);
            ends.push(users.len());
        }
        let lengths = lengths(&cx.job, &users);
        let longest = population.catalogue.items().iter().map(|i| i.item_id.len()).max().unwrap_or(0);
        let row = 64 + cx.job.retriever.candidates as usize * (longest + 8);
        let bytes = |users: &[User]| -> usize {
            users.iter().filter_map(|u| Some(lengths.get(&u.id)?.len() * (row + u.id.len()))).sum()
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let largest = starts.zip(&ends).map(|(start, end)| bytes(&users[start..*end])).max().unwrap_or(0);
        Ok(Self { pieces: largest.div_ceil(PART_BYTES).max(1) as u32, lengths })
    }
}

/// The prefixes that the ranker's steps will draw: all of them, or those of a bounded number of steps.
fn lengths(job: &Job, users: &[User]) -> BTreeMap<String, Vec<usize>> {
    let prefixes = TrainingPrefixes::new(users.iter().map(|u| training_items(&u.items).len()));
    let drawn = match u64::from(job.ranker.max_steps) * u64::from(job.ranker.batch_size) {
        0 => u64::MAX,
        bounded => bounded,
    };
    let mut examples = Vec::new();
    for epoch in 0..u64::from(job.ranker.max_epochs) {
        let left = drawn.saturating_sub(epoch.saturating_mul(prefixes.len()));
        if left >= prefixes.len() {
            examples = (0..prefixes.len()).collect();
            break;
        }
        let order = Permutation::new(prefixes.len(), job.seed, epoch);
        examples.extend((0..left).map(|place| order.at(place)));
    }
    examples.sort_unstable();
    examples.dedup();
    let mut lengths = BTreeMap::<String, Vec<usize>>::new();
    for example in examples {
        let prefix = prefixes.at(example);
        lengths.entry(users[prefix.user].id.clone()).or_default().push(prefix.length);
    }
    lengths
}

impl Retrieval {
    pub(super) fn prefixes(
        &self,
        cx: &mut Context,
        users: &[User],
        wanted: &Wanted,
        output: &mut Output,
        shard: u32,
    ) -> Result<()> {
        let rows = users.iter().filter_map(|u| wanted.lengths.get(&u.id)).map(Vec::len).sum();
        let mut pieces = Pieces::new(rows, wanted.pieces);
        let (first, of) = (shard * wanted.pieces, cx.plan.shards * wanted.pieces);
        for (done, user) in users.iter().enumerate() {
            cx.check()?;
            if let Some(lengths) = wanted.lengths.get(&user.id) {
                let training = training_items(&user.items);
                let k = cx.job.retriever.candidates as usize;
                let found = retrieve_prefixes(&self.retriever, training, lengths, k)?;
                for (length, best) in lengths.iter().zip(&found) {
                    if let Some((piece, rows)) = pieces.push(self.row(user, Some(*length as u32), best)) {
                        cx.write_part(output, &rows, first + piece, of)?;
                    }
                }
            }
            cx.progress(done as u64 + 1, users.len() as u64, "users", String::new);
        }
        pieces.rest().into_iter().try_for_each(|(piece, rows)| cx.write_part(output, &rows, first + piece, of))
    }
}

/// Cuts a known number of rows into a fixed number of pieces of the same size, the last ones shorter or empty.
struct Pieces<T> {
    size: usize,
    pieces: u32,
    full: u32,
    rows: Vec<T>,
}

impl<T> Pieces<T> {
    fn new(rows: usize, pieces: u32) -> Self {
        Self { size: rows.div_ceil(pieces as usize).max(1), pieces, full: 0, rows: Vec::new() }
    }

    /// Takes a row, and gives a piece with its number once it is full.
    fn push(&mut self, row: T) -> Option<(u32, Vec<T>)> {
        self.rows.push(row);
        if self.rows.len() < self.size {
            return None;
        }
        self.full += 1;
        Some((self.full - 1, std::mem::take(&mut self.rows)))
    }

    /// What is left, and the empty pieces behind it.
    fn rest(mut self) -> Vec<(u32, Vec<T>)> {
        (self.full..self.pieces).map(|piece| (piece, std::mem::take(&mut self.rows))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn every_row_is_in_one_piece_and_every_piece_is_there() {
        for rows in 0..40 {
            for pieces in 1..9 {
                let mut cut = Pieces::new(rows, pieces);
                let mut all: Vec<(u32, Vec<usize>)> = (0..rows).filter_map(|row| cut.push(row)).collect();
                all.extend(cut.rest());
                let numbers: Vec<u32> = all.iter().map(|(piece, _)| *piece).collect();
                assert_eq!(numbers, (0..pieces).collect::<Vec<_>>(), "{rows} rows in {pieces} pieces");
                let kept: Vec<usize> = all.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
                assert_eq!(kept, (0..rows).collect::<Vec<_>>());
                let size = rows.div_ceil(pieces as usize).max(1);
                assert!(all.iter().all(|(_, piece)| piece.len() <= size));
            }
        }
    }
}
