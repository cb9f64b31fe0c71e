//! Blocks of rows in parallel; classes tile by tile in ascending order.

use std::ops::Range;

use rayon::prelude::*;

use super::{Problem, Scored, worst_if_nan};
use crate::{
    gemm::cpu::{MatRef, PANEL, Packed, Tile},
    simd::{lanes, vectorised},
};

/// Rows of one task.
const ROWS: usize = 64;
/// Classes of a tile, a multiple of a panel.
const CLASSES: usize = 512;
/// Classes that are packed at a time.
const CHUNK: usize = 32 * CLASSES;

pub(super) fn top_k(problem: &Problem<'_>, k: usize) -> Vec<Vec<Scored>> {
    let mut best: Vec<Best> = (0..problem.n).map(|_| Best::new(k)).collect();
    for chunk in problem.chunks() {
        best.par_chunks_mut(ROWS).enumerate().for_each(|(block, best)| {
            let first = block * ROWS;
            chunk.for_each_tile(problem, first..first + best.len(), |classes, tile| {
                for ((best, scores), exclude) in best.iter_mut().zip(tile.rows()).zip(&problem.exclude[first..]) {
                    best.visit(scores, classes.start as u32, exclude);
                }
            });
        });
    }
    best.into_iter().map(|best| best.kept).collect()
}

pub(super) fn ranks(problem: &Problem<'_>, targets: &[u32]) -> Vec<u32> {
    let goals: Vec<Goal> = targets
        .par_iter()
        .enumerate()
        .map(|(row, &id)| Goal { id, score: worst_if_nan(problem.score(row, id)) })
        .collect();
    let mut ranks = vec![1u32; problem.n];
    for chunk in problem.chunks() {
        ranks.par_chunks_mut(ROWS).enumerate().for_each(|(block, ranks)| {
            let first = block * ROWS;
            chunk.for_each_tile(problem, first..first + ranks.len(), |classes, tile| {
                for (i, (rank, scores)) in ranks.iter_mut().zip(tile.rows()).enumerate() {
                    let exclude = problem.exclude[first + i];
                    *rank += goals[first + i].count_better(scores, classes.start as u32, exclude);
                }
            });
        });
    }
    ranks
}

/// Neighbouring classes, packed for the product.
struct Chunk {
    classes: Range<usize>,
    weight: Packed,
}

impl Chunk {
    /// Visits the scores of some rows, tile by tile in the order of classes.
    fn for_each_tile(&self, problem: &Problem<'_>, rows: Range<usize>, mut visit: impl FnMut(Range<usize>, &Tile)) {
        let x = &problem.x[rows.start * problem.d..rows.end * problem.d];
        let mut tile = Tile::default();
        for start in self.classes.clone().step_by(CLASSES) {
            let classes = start..(start + CLASSES).min(self.classes.end);
            let panels =
                (classes.start - self.classes.start) / PANEL..(classes.end - self.classes.start).div_ceil(PANEL);
            tile.linear(x, problem.d, &self.weight, panels, problem.bias.map(|b| &b[classes.clone()]));
            visit(classes, &tile);
        }
    }
}

impl Problem<'_> {
    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        (self.first_class..self.classes).step_by(CHUNK).map(|start| {
            let classes = start..(start + CHUNK).min(self.classes);
            Chunk { weight: Packed::new_parallel(self.weight(&classes)), classes }
        })
    }

    /// One score: the same bits as in a tile, as they depend on row and class alone.
    fn score(&self, row: usize, id: u32) -> f32 {
        let class = id as usize..id as usize + 1;
        let weight = Packed::new(self.weight(&class));
        let mut tile = Tile::default();
        tile.linear(&self.x[row * self.d..][..self.d], self.d, &weight, 0..1, self.bias.map(|b| &b[class]));
        tile.rows().next().map_or(f32::NAN, |scores| scores[0])
    }

    /// The weights of some classes, transposed: `[D, classes]`.
    fn weight(&self, classes: &Range<usize>) -> MatRef<'_> {
        MatRef::new(&self.weight[classes.start * self.d..classes.end * self.d], classes.len(), self.d).t()
    }
}

/// The best classes seen so far, best first.
struct Best {
    k: usize,
    kept: Vec<Scored>,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { k, kept: Vec::new() }
    }

    /// What a score must beat. Classes come in ascending order, so an equal score of a later class does not.
    fn bar(&self) -> f32 {
        match self.kept.last() {
            Some(last) if self.kept.len() == self.k => last.score,
            _ => f32::NEG_INFINITY,
        }
    }

    fn visit(&mut self, scores: &[f32], first_class: u32, exclude: &[u32]) {
        const STEP: usize = 4 * lanes::LANES;
        if self.k == 0 {
            return;
        }
        for (i, part) in scores.chunks(STEP).enumerate() {
            if self.kept.len() < self.k || any_above(part, self.bar()) {
                for (id, &score) in (first_class + (i * STEP) as u32..).zip(part) {
                    self.offer(Scored { id, score }, exclude);
                }
            }
        }
    }

    fn offer(&mut self, candidate: Scored, exclude: &[u32]) {
        let score = worst_if_nan(candidate.score);
        let full = self.kept.len() == self.k;
        if (full && score <= self.bar()) || exclude.binary_search(&candidate.id).is_ok() {
            return;
        }
        if full {
            self.kept.pop();
        }
        let place = self.kept.partition_point(|kept| kept.score >= score);
        self.kept.insert(place, Scored { id: candidate.id, score });
    }
}

/// The class whose rank is wanted.
struct Goal {
    score: f32,
    id: u32,
}

impl Goal {
    /// How many of the scores are better and not excluded.
    fn count_better(&self, scores: &[f32], first_class: u32, exclude: &[u32]) -> u32 {
        // Classes before the target win a tie, the target and those behind it do not.
        let split = (self.id.saturating_sub(first_class) as usize).min(scores.len());
        let (before, behind) = scores.split_at(split);
        // Below the worst score nothing is left, and scores that are no numbers tie with it.
        let ahead = if self.score == f32::NEG_INFINITY { split as u32 } else { count_at_least(before, self.score) };
        let all = ahead + count_above(behind, self.score);
        let end = first_class + scores.len() as u32;
        let from = exclude.partition_point(|&id| id < first_class);
        let mut last = None;
        let excluded = exclude[from..].iter().take_while(|&&id| id < end).filter(|&&id| {
            let repeated = last.replace(id) == Some(id);
            let score = worst_if_nan(scores[(id - first_class) as usize]);
            !repeated && (score > self.score || (score == self.score && id < self.id))
        });
        all - excluded.count() as u32
    }
}

vectorised! {
    fn any_above(scores: &[f32], bar: f32) -> bool {
        scores.iter().fold(false, |any, &s| any | (s > bar))
    }

    fn count_above(scores: &[f32], bar: f32) -> u32 {
        scores.iter().map(|&s| u32::from(s > bar)).sum()
    }

    fn count_at_least(scores: &[f32], bar: f32) -> u32 {
        scores.iter().map(|&s| u32::from(s >= bar)).sum()
    }
}
