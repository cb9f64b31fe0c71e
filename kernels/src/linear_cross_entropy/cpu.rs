//! Tiles of rows × classes in cache.
//!
//! Classes are cut into stripes, one task each: a stripe owns its rows of `dW` and `db` and sums over tokens in order.
//! Its contribution to `dx` is kept apart and the stripes are added in order at the end. The number of stripes is at
//! most [`STRIPES`], so that these parts stay small beside the logits that are never made.
//!
//! A softmax is known only when all classes were seen, so every tile is needed twice. Of a few thousand classes a group
//! of rows keeps its tiles, at most [`HELD`] logits, from one pass to the next; of more classes they are computed again.
//! Both give the same bits.

use std::ops::Range;

use rayon::prelude::*;

use super::Problem;
use super::softmax::{Row, exp_scaled};
use crate::gemm::cpu::{MatMut, MatRef, Onto, Packed, Tile, sgemm_packed};
use crate::simd::{add, lanes};

/// Rows of a tile.
const ROWS: usize = 128;
/// Classes of a tile: with [`ROWS`] 256 KiB of logits, which stay in the second-level cache.
const CLASSES: usize = 512;
/// The largest number of stripes.
const STRIPES: usize = 32;
/// The most logits that are kept from one pass to the next: 8 MiB, which a third-level cache holds.
const HELD: usize = 1 << 21;

/// Where gradients go: `dW`, `db`.
pub(super) struct Gradients<'a> {
    pub(super) dw: Option<&'a mut [f32]>,
    pub(super) db: Option<&'a mut [f32]>,
}

/// How the rows are worked through.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Rows of a group, a multiple of [`ROWS`].
    rows: usize,
    /// Whether the tiles of a group are kept.
    held: bool,
}

impl Plan {
    /// A function of the number of classes alone, as nothing about a row may depend on its company.
    pub(super) fn new(classes: usize) -> Self {
        let rows = HELD / classes.max(1) / ROWS * ROWS;
        if rows > 0 { Self { rows, held: true } } else { Self::COMPUTED_AGAIN }
    }

    /// All rows in one group, tiles computed again.
    pub(super) const COMPUTED_AGAIN: Self = Self { rows: usize::MAX, held: false };
}

/// One pass over all logits: the softmax of every row.
pub(super) fn normalise(problem: &Problem) -> Vec<Row> {
    let mut stripes = Stripe::all(problem, Plan::COMPUTED_AGAIN, Gradients { dw: None, db: None });
    softmax(&mut stripes, 0..problem.n)
}

/// The softmax of every row, and `dx`.
pub(super) fn forward_backward(
    problem: &Problem,
    plan: Plan,
    row_scale: &[f32],
    gradients: Gradients<'_>,
) -> (Vec<Row>, Vec<f32>) {
    let mut stripes = Stripe::all(problem, plan, gradients);
    let mut rows = Vec::with_capacity(problem.n);
    let mut dx = Vec::with_capacity(problem.n * problem.d);
    for group in blocks(0..problem.n, plan.rows) {
        let softmax = softmax(&mut stripes, group.clone());
        let inputs: Vec<Packed> = blocks(group.clone(), ROWS).map(|r| Packed::new(problem.x(&r))).collect();
        let group = Group { rows: group.clone(), softmax: &softmax, scale: &row_scale[group], inputs: &inputs };
        stripes.par_iter_mut().for_each(|stripe| stripe.backward(&group));
        dx.extend(sum_parts(&stripes, group.rows.len() * problem.d));
        rows.extend(softmax);
    }
    (rows, dx)
}

/// The softmax of some rows; stripes are merged in order.
fn softmax(stripes: &mut [Stripe], group: Range<usize>) -> Vec<Row> {
    let parts: Vec<Vec<Row>> = stripes.par_iter_mut().map(|stripe| stripe.normalise(&group)).collect();
    let mut rows = vec![Row::EMPTY; group.len()];
    for part in &parts {
        rows.iter_mut().zip(part).for_each(|(row, part)| row.merge(part));
    }
    rows
}

/// Some rows whose softmax is known.
struct Group<'a> {
    rows: Range<usize>,
    softmax: &'a [Row],
    scale: &'a [f32],
    /// The blocks of rows of `x`, packed.
    inputs: &'a [Packed],
}

/// The weights of a tile's classes, in both layouts.
#[derive(Default)]
struct Weights {
    for_logits: Packed,
    for_dx: Packed,
}

/// One stripe of classes with its part of the gradients.
struct Stripe<'a> {
    problem: &'a Problem<'a>,
    held: bool,
    classes: Range<usize>,
    /// Of every tile of classes, or of the one at hand.
    weights: Vec<Weights>,
    /// Of every tile of classes every block of rows, or the one at hand.
    tiles: Vec<Tile>,
    dw: Option<&'a mut [f32]>,
    db: Option<&'a mut [f32]>,
    /// The part of `dx` for a group of rows.
    dx: Vec<f32>,
}

impl<'a> Stripe<'a> {
    fn all(problem: &'a Problem, plan: Plan, gradients: Gradients<'a>) -> Vec<Self> {
        let stripes = stripes(problem.classes);
        let dws = split(gradients.dw, &stripes, problem.d);
        let dbs = split(gradients.db, &stripes, 1);
        let parts = stripes.into_iter().zip(dws).zip(dbs);
        parts.map(|((classes, dw), db)| Self::new(problem, plan.held, classes, dw, db)).collect()
    }

    fn new(
        problem: &'a Problem,
        held: bool,
        classes: Range<usize>,
        dw: Option<&'a mut [f32]>,
        db: Option<&'a mut [f32]>,
    ) -> Self {
        Self { problem, held, classes, weights: Vec::new(), tiles: Vec::new(), dw, db, dx: Vec::new() }
    }

    /// The stripe's part of the softmax of some rows.
    fn normalise(&mut self, group: &Range<usize>) -> Vec<Row> {
        let problem = self.problem;
        let mut rows = vec![Row::EMPTY; group.len()];
        for (i, c) in blocks(self.classes.clone(), CLASSES).enumerate() {
            let weights = self.pack(i, &c, self.held);
            for (j, r) in blocks(group.clone(), ROWS).enumerate() {
                let tile = self.place(i, j, group.len());
                self.logits(weights, tile, &r, &c);
                let rows = &mut rows[r.start - group.start..r.end - group.start];
                for ((row, logits), &label) in rows.iter_mut().zip(self.tiles[tile].rows()).zip(&problem.labels[r]) {
                    row.see(logits, (label as usize).checked_sub(c.start));
                }
            }
        }
        rows
    }

    /// Adds to `dW` and `db`, sets the stripe's part of `dx`.
    fn backward(&mut self, group: &Group) {
        let d = self.problem.d;
        let mut dx = std::mem::take(&mut self.dx);
        dx.clear();
        dx.resize(group.rows.len() * d, 0.0);
        for (i, c) in blocks(self.classes.clone(), CLASSES).enumerate() {
            let weights = self.pack(i, &c, true);
            for (j, r) in blocks(group.rows.clone(), ROWS).enumerate() {
                let tile = self.place(i, j, group.rows.len());
                if !self.held {
                    self.logits(weights, tile, &r, &c);
                }
                let own = r.start - group.rows.start..r.end - group.rows.start;
                self.logits_to_gradient(tile, group, &own, &c);
                let dx = MatMut::new(&mut dx[own.start * d..own.end * d], own.len(), d);
                sgemm_packed(1.0, self.tiles[tile].view(), &self.weights[weights].for_dx, Onto::Result, dx);
                self.add_to_weights(tile, &group.inputs[j], &c);
            }
        }
        self.dx = dx;
    }

    /// Packs the weights of class block `i`, unless they are kept from before; says where they are.
    fn pack(&mut self, i: usize, c: &Range<usize>, for_dx: bool) -> usize {
        let place = if self.held { i } else { 0 };
        if place >= self.weights.len() {
            self.weights.push(Weights::default());
        } else if self.held {
            return place;
        }
        let weight = self.problem.weight(c);
        self.weights[place].for_logits.pack(weight.t());
        if for_dx {
            self.weights[place].for_dx.pack(weight);
        }
        place
    }

    /// Where the tile of class block `i` and row block `j` is kept, of a group of `rows` rows.
    fn place(&self, i: usize, j: usize, rows: usize) -> usize {
        if self.held { i * rows.div_ceil(ROWS) + j } else { 0 }
    }

    /// Makes the logits of some rows and classes.
    fn logits(&mut self, weights: usize, tile: usize, r: &Range<usize>, c: &Range<usize>) {
        let problem = self.problem;
        if self.tiles.len() <= tile {
            self.tiles.resize_with(tile + 1, Tile::default);
        }
        let weights = &self.weights[weights].for_logits;
        let x = &problem.x[r.start * problem.d..r.end * problem.d];
        let bias = problem.bias.map(|b| &b[c.clone()]);
        self.tiles[tile].linear(x, problem.d, weights, 0..weights.panels(), bias);
    }

    /// Turns logits into `row_scale · (softmax - one_hot)`; `rows` counts from the start of the group.
    fn logits_to_gradient(&mut self, tile: usize, group: &Group, rows: &Range<usize>, c: &Range<usize>) {
        for (row, logits) in rows.clone().zip(self.tiles[tile].rows_mut()) {
            let scale = group.scale[row];
            exp_scaled(logits, group.softmax[row].lse(), scale);
            let label = (self.problem.labels[group.rows.start + row] as usize).checked_sub(c.start);
            if let Some(p) = label.and_then(|i| logits.get_mut(i)) {
                *p -= scale;
            }
        }
    }

    /// `dW += Pᵀ · x` and `db += Σ P` for one tile.
    fn add_to_weights(&mut self, tile: usize, x: &Packed, c: &Range<usize>) {
        let (d, tile) = (self.problem.d, &self.tiles[tile]);
        let own = c.start - self.classes.start..c.end - self.classes.start;
        if let Some(dw) = self.dw.as_deref_mut() {
            let dw = MatMut::new(&mut dw[own.start * d..own.end * d], c.len(), d);
            sgemm_packed(1.0, tile.view().t(), x, Onto::Result, dw);
        }
        if let Some(db) = self.db.as_deref_mut() {
            tile.rows().for_each(|row| add(&mut db[own.clone()], row));
        }
    }
}

impl Problem<'_> {
    fn x(&self, r: &Range<usize>) -> MatRef<'_> {
        MatRef::new(&self.x[r.start * self.d..r.end * self.d], r.len(), self.d)
    }

    fn weight(&self, c: &Range<usize>) -> MatRef<'_> {
        MatRef::new(&self.weight[c.start * self.d..c.end * self.d], c.len(), self.d)
    }
}

/// A range cut into blocks of a size; the last may be short.
fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..start.saturating_add(size).min(end))
}

/// The stripes of the classes: at least a tile wide, at most [`STRIPES`] of them.
pub(super) fn stripes(classes: usize) -> Vec<Range<usize>> {
    let width = classes.div_ceil(STRIPES).max(CLASSES).next_multiple_of(lanes::LANES);
    // Equal widths keep the tasks equally long.
    let width = classes.div_ceil(classes.div_ceil(width).max(1)).next_multiple_of(lanes::LANES).max(1);
    blocks(0..classes, width).collect()
}

/// Cuts a gradient into the stripes' parts.
fn split<'a>(grad: Option<&'a mut [f32]>, stripes: &[Range<usize>], per_class: usize) -> Vec<Option<&'a mut [f32]>> {
    let Some(mut rest) = grad else {
        return stripes.iter().map(|_| None).collect();
    };
    stripes
        .iter()
        .map(|stripe| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(stripe.len() * per_class);
            rest = tail;
            Some(head)
        })
        .collect()
}

/// Adds the stripes' parts of `dx` in order.
fn sum_parts(stripes: &[Stripe], len: usize) -> Vec<f32> {
    const CHUNK: usize = 8 * 1024;
    let Some((first, others)) = stripes.split_first() else {
        return vec![0.0; len];
    };
    let mut total = first.dx.clone();
    total.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        for stripe in others {
            add(chunk, &stripe.dx[i * CHUNK..][..chunk.len()]);
        }
    });
    total
}
