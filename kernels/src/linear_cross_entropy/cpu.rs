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
use super::softmax::{Row, scale_and_sum};
use crate::gemm::cpu::{MatMut, MatRef, Onto, Packed, Tile, sgemm_packed};
use crate::memory::Memory;
use crate::simd::{self, add, lanes};

/// Rows of a tile.
const ROWS: usize = 128;
/// Classes of a tile: with [`ROWS`] 256 KiB of logits, which stay in the second-level cache.
const CLASSES: usize = 512;
/// The largest number of stripes.
const STRIPES: usize = 32;
/// The most exponentials that are kept from one pass to the next: 8 MiB, which a third-level cache holds.
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
    /// A function of the weight's shape alone, as nothing about a row may depend on its company. Groups also keep the
    /// weight, packed in both layouts.
    pub(super) fn new(classes: usize, d: usize) -> Self {
        let rows = HELD / classes.max(1) / ROWS * ROWS;
        if rows > 0 && classes * d <= 2 * HELD { Self { rows, held: true } } else { Self::COMPUTED_AGAIN }
    }

    /// All rows in one group, tiles computed again.
    pub(super) const COMPUTED_AGAIN: Self = Self { rows: usize::MAX, held: false };
}

/// One pass over all logits: the softmax of every row.
pub(super) fn normalise(problem: &Problem) -> Vec<Row> {
    let mut stripes = Stripe::all(problem, Plan::COMPUTED_AGAIN, Gradients { dw: None, db: None });
    softmax(&mut stripes, 0..problem.n)
}

/// The softmax of every row; `dx` is written, the other gradients are added to.
pub(super) fn forward_backward(
    problem: &Problem,
    plan: Plan,
    row_scale: &[f32],
    gradients: Gradients<'_>,
    dx: &mut [f32],
) -> Vec<Row> {
    let mut stripes = Stripe::all(problem, plan, gradients);
    let mut rows = Vec::with_capacity(problem.n);
    for group in blocks(0..problem.n, plan.rows) {
        let softmax = softmax(&mut stripes, group.clone());
        backward_group(&mut stripes, group, &softmax, row_scale, dx);
        rows.extend(softmax);
    }
    rows
}

/// The gradients of rows whose softmax is `known` already, perhaps with classes that are not here.
pub(super) fn backward(
    problem: &Problem,
    plan: Plan,
    known: &[Row],
    row_scale: &[f32],
    gradients: Gradients<'_>,
    dx: &mut [f32],
) {
    let mut stripes = Stripe::all(problem, Plan { held: false, ..plan }, gradients);
    for group in blocks(0..problem.n, plan.rows) {
        backward_group(&mut stripes, group.clone(), &known[group], row_scale, dx);
    }
}

/// Writes `dx` of some rows, and adds to the other gradients.
fn backward_group(stripes: &mut [Stripe], rows: Range<usize>, softmax: &[Row], row_scale: &[f32], dx: &mut [f32]) {
    let Some(problem) = stripes.first().map(|stripe| stripe.problem) else {
        return dx.fill(0.0); // there are no classes
    };
    let inputs: Vec<Packed> = blocks(rows.clone(), ROWS).map(|r| Packed::new(problem.x(&r))).collect();
    let dx = &mut dx[rows.start * problem.d..rows.end * problem.d];
    let group = Group { rows: rows.clone(), softmax, scale: &row_scale[rows], inputs: &inputs };
    stripes.par_iter_mut().for_each(|stripe| stripe.backward(&group));
    sum_parts(stripes, dx);
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

/// Some rows and classes: logits, exponentials and at last gradients.
#[derive(Default)]
struct Part {
    tile: Tile,
    /// Of every row the largest logit of the tile, which its exponentials are relative to.
    maxima: Vec<f32>,
}

/// One stripe of classes with its part of the gradients.
struct Stripe<'a> {
    problem: &'a Problem<'a>,
    held: bool,
    classes: Range<usize>,
    /// Of every tile of classes, or of the one at hand.
    weights: Vec<Weights>,
    /// Of every tile of classes every block of rows, or the one at hand.
    parts: Vec<Part>,
    dw: Option<&'a mut [f32]>,
    db: Option<&'a mut [f32]>,
    /// The part of `dx` for a group of rows.
    dx: Memory<f32>,
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
        Self { problem, held, classes, weights: Vec::new(), parts: Vec::new(), dw, db, dx: Memory::new() }
    }

    /// The stripe's part of the softmax of some rows.
    fn normalise(&mut self, group: &Range<usize>) -> Vec<Row> {
        let mut rows = vec![Row::EMPTY; group.len()];
        for (i, c) in blocks(self.classes.clone(), CLASSES).enumerate() {
            let weights = self.pack(i, &c, self.held);
            for (j, r) in blocks(group.clone(), ROWS).enumerate() {
                let part = self.place(i, j, group.len());
                let rows = &mut rows[r.start - group.start..r.end - group.start];
                self.exponentials(weights, part, &r, &c, rows);
            }
        }
        rows
    }

    /// Adds to `dW` and `db`, sets the stripe's part of `dx`.
    fn backward(&mut self, group: &Group) {
        let d = self.problem.d;
        let mut dx = std::mem::take(&mut self.dx);
        dx.resize_dirty(group.rows.len() * d);
        for (i, c) in blocks(self.classes.clone(), CLASSES).enumerate() {
            let weights = self.pack(i, &c, true);
            for (j, r) in blocks(group.rows.clone(), ROWS).enumerate() {
                let part = self.place(i, j, group.rows.len());
                if !self.held {
                    self.exponentials(weights, part, &r, &c, &mut vec![Row::EMPTY; r.len()]);
                }
                let own = r.start - group.rows.start..r.end - group.rows.start;
                self.make_gradient(part, group, &own, &c);
                let dx = MatMut::new(&mut dx[own.start * d..own.end * d], own.len(), d);
                let onto = if i == 0 { Onto::Nothing } else { Onto::Result };
                sgemm_packed(1.0, self.parts[part].tile.view(), &self.weights[weights].for_dx, onto, dx);
                self.add_to_weights(part, &group.inputs[j], &c);
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

    /// Where the part of class block `i` and row block `j` is kept, of a group of `rows` rows.
    fn place(&self, i: usize, j: usize, rows: usize) -> usize {
        if self.held { i * rows.div_ceil(ROWS) + j } else { 0 }
    }

    /// Makes the exponentials of some rows and classes, and adds them to the softmax of the rows.
    fn exponentials(&mut self, weights: usize, part: usize, r: &Range<usize>, c: &Range<usize>, rows: &mut [Row]) {
        let problem = self.problem;
        if self.parts.len() <= part {
            self.parts.resize_with(part + 1, Part::default);
        }
        let weights = &self.weights[weights].for_logits;
        let Part { tile, maxima } = &mut self.parts[part];
        let x = &problem.x[r.start * problem.d..r.end * problem.d];
        tile.linear(x, problem.d, weights, 0..weights.panels(), problem.bias.map(|b| &b[c.clone()]));
        maxima.clear();
        for ((row, logits), &label) in rows.iter_mut().zip(tile.rows_mut()).zip(&problem.labels[r.clone()]) {
            maxima.push(row.take(logits, (label as usize).checked_sub(c.start)));
        }
    }

    /// Turns exponentials into `row_scale · (softmax - one_hot)`, which is added to `db`; `rows` counts from the start of
    /// the group.
    fn make_gradient(&mut self, part: usize, group: &Group, rows: &Range<usize>, c: &Range<usize>) {
        let labels = &self.problem.labels[group.rows.start..];
        let own = c.start - self.classes.start..c.end - self.classes.start;
        let mut db = self.db.as_deref_mut().map(|db| &mut db[own]);
        let Part { tile, maxima } = &mut self.parts[part];
        for ((row, &max), values) in rows.clone().zip(&*maxima).zip(tile.rows_mut()) {
            let scale = group.scale[row];
            let factor = (max - group.softmax[row].lse()).exp() * scale;
            match &mut db {
                Some(db) => scale_and_sum(values, factor, db),
                None => simd::scale(factor, values),
            }
            let label = (labels[row] as usize).wrapping_sub(c.start);
            if let Some(p) = values.get_mut(label) {
                *p -= scale;
                db.iter_mut().for_each(|db| db[label] -= scale);
            }
        }
    }

    /// `dW += Pᵀ · x` for one part.
    fn add_to_weights(&mut self, part: usize, x: &Packed, c: &Range<usize>) {
        let Some(dw) = self.dw.as_deref_mut() else { return };
        let d = self.problem.d;
        let own = c.start - self.classes.start..c.end - self.classes.start;
        let dw = MatMut::new(&mut dw[own.start * d..own.end * d], c.len(), d);
        sgemm_packed(1.0, self.parts[part].tile.view().t(), x, Onto::Result, dw);
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
fn sum_parts(stripes: &[Stripe], dx: &mut [f32]) {
    const CHUNK: usize = 8 * 1024;
    dx.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let part = i * CHUNK..i * CHUNK + chunk.len();
        chunk.copy_from_slice(&stripes[0].dx[part.clone()]);
        for stripe in &stripes[1..] {
            add(chunk, &stripe.dx[part.clone()]);
        }
    });
}
