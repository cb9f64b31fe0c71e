//! Tiles of rows × classes in cache.
//!
//! Classes are cut into stripes, one task each: a stripe owns its rows of `dW` and `db` and sums over tokens in order.
//! Its contribution to `dx` is kept apart and the stripes are added in order at the end. The number of stripes is at
//! most [`STRIPES`], so that these parts stay small beside the logits that are never made.

use std::ops::Range;

use rayon::prelude::*;

use super::Problem;
use crate::gemm::cpu::{MatMut, MatRef, Packed, Tile, sgemm_packed};
use crate::simd::{add, lanes, vectorised};

/// Rows of a tile.
const ROWS: usize = 128;
/// Classes of a tile: with [`ROWS`] 256 KiB of logits, which stay in the second-level cache.
const CLASSES: usize = 512;
/// The largest number of stripes.
const STRIPES: usize = 32;

/// The softmax of one row, as far as it was seen: `Σ exp(logit)` is `sum · exp(max)`.
#[derive(Clone, Copy)]
pub(super) struct Row {
    max: f32,
    sum: f32,
    label_logit: f32,
}

impl Row {
    const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, label_logit: f32::NEG_INFINITY };

    /// Log of the sum of all exponentials.
    fn lse(&self) -> f32 {
        self.max + self.sum.ln()
    }

    /// The cross-entropy of the label.
    pub(super) fn loss(&self) -> f32 {
        self.lse() - self.label_logit
    }

    /// Adds a part of the logits, one of which may be that of the label.
    fn see(&mut self, logits: &[f32], label: Option<usize>) {
        let (max, sum) = max_and_sum(logits);
        let label_logit = label.and_then(|i| logits.get(i)).copied().unwrap_or(f32::NEG_INFINITY);
        self.merge(&Self { max, sum, label_logit });
    }

    /// Adds what another part of the classes contributed.
    fn merge(&mut self, other: &Self) {
        let max = self.max.max(other.max);
        if max > f32::NEG_INFINITY {
            self.sum = self.sum * (self.max - max).exp() + other.sum * (other.max - max).exp();
        } else {
            self.sum += other.sum;
        }
        self.max = max;
        // Only one part holds the label; the others say minus infinity. What is not a number must win.
        if other.label_logit > self.label_logit || other.label_logit.is_nan() {
            self.label_logit = other.label_logit;
        }
    }
}

/// One pass over all logits: the softmax of every row.
pub(super) fn normalise(problem: &Problem) -> Vec<Row> {
    let parts: Vec<Vec<Row>> = stripes(problem.classes)
        .into_par_iter()
        .map(|stripe| {
            let mut rows = vec![Row::EMPTY; problem.n];
            let mut tile = Tile::default();
            for c in stripe.clone().step_by(CLASSES).map(|c| c..(c + CLASSES).min(stripe.end)) {
                let weight = Packed::new(problem.weight(&c).t());
                for r in problem.row_blocks() {
                    problem.logits(&r, &c, &weight, &mut tile);
                    for ((row, logits), &label) in rows[r.clone()].iter_mut().zip(tile.rows()).zip(&problem.labels[r]) {
                        row.see(logits, (label as usize).checked_sub(c.start));
                    }
                }
            }
            rows
        })
        .collect();
    let mut rows = vec![Row::EMPTY; problem.n];
    for part in &parts {
        rows.iter_mut().zip(part).for_each(|(row, part)| row.merge(part));
    }
    rows
}

/// The second pass: gradients. Returns `dx`.
pub(super) fn backward(
    problem: &Problem,
    rows: &[Row],
    row_scale: &[f32],
    dw: Option<&mut [f32]>,
    db: Option<&mut [f32]>,
) -> Vec<f32> {
    let stripes = stripes(problem.classes);
    let dws = split(dw, &stripes, problem.d);
    let dbs = split(db, &stripes, 1);
    let inputs: Vec<Packed> = problem.row_blocks().map(|r| Packed::new(problem.x(&r))).collect();
    let tasks: Vec<_> = stripes.into_iter().zip(dws).zip(dbs).collect();
    let parts: Vec<Vec<f32>> = tasks
        .into_par_iter()
        .map(|((classes, dw), db)| Stripe { problem, rows, row_scale, inputs: &inputs, classes, dw, db }.backward())
        .collect();
    sum_parts(parts, problem.n * problem.d)
}

/// One stripe of classes with its part of the gradients.
struct Stripe<'a> {
    problem: &'a Problem<'a>,
    rows: &'a [Row],
    row_scale: &'a [f32],
    /// The blocks of rows of `x`, packed.
    inputs: &'a [Packed],
    classes: Range<usize>,
    dw: Option<&'a mut [f32]>,
    db: Option<&'a mut [f32]>,
}

impl Stripe<'_> {
    /// Adds to `dW` and `db`, returns the stripe's part of `dx`.
    fn backward(mut self) -> Vec<f32> {
        let (problem, d, start) = (self.problem, self.problem.d, self.classes.start);
        let mut dx = vec![0.0; problem.n * d];
        let mut tile = Tile::default();
        for c in self.classes.clone().step_by(CLASSES).map(|c| c..(c + CLASSES).min(self.classes.end)) {
            let weight = problem.weight(&c);
            let (for_logits, for_dx) = (Packed::new(weight.t()), Packed::new(weight));
            let own = c.start - start..c.end - start;
            for (r, x) in problem.row_blocks().zip(self.inputs) {
                problem.logits(&r, &c, &for_logits, &mut tile);
                self.logits_to_gradient(&mut tile, &r, &c);

                let p = tile.view(); // [rows, classes]
                let dx = MatMut::new(&mut dx[r.start * d..r.end * d], r.len(), d);
                sgemm_packed(1.0, p, &for_dx, 1.0, dx);
                if let Some(dw) = self.dw.as_deref_mut() {
                    let dw = MatMut::new(&mut dw[own.start * d..own.end * d], c.len(), d);
                    sgemm_packed(1.0, p.t(), x, 1.0, dw);
                }
                if let Some(db) = self.db.as_deref_mut() {
                    tile.rows().for_each(|row| add(&mut db[own.clone()], row));
                }
            }
        }
        dx
    }

    /// Turns logits into `row_scale · (softmax - one_hot)`.
    fn logits_to_gradient(&self, tile: &mut Tile, r: &Range<usize>, c: &Range<usize>) {
        for (row, logits) in r.clone().zip(tile.rows_mut()) {
            let scale = self.row_scale[row];
            exp_scaled(logits, self.rows[row].lse(), scale);
            let label = (self.problem.labels[row] as usize).checked_sub(c.start);
            if let Some(p) = label.and_then(|i| logits.get_mut(i)) {
                *p -= scale;
            }
        }
    }
}

impl Problem<'_> {
    /// Blocks of rows: the rows of a tile.
    fn row_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n = self.n;
        (0..n).step_by(ROWS).map(move |r| r..(r + ROWS).min(n))
    }

    fn x(&self, r: &Range<usize>) -> MatRef<'_> {
        MatRef::new(&self.x[r.start * self.d..r.end * self.d], r.len(), self.d)
    }

    fn weight(&self, c: &Range<usize>) -> MatRef<'_> {
        MatRef::new(&self.weight[c.start * self.d..c.end * self.d], c.len(), self.d)
    }

    /// Makes the logits of some rows and classes; `weight` is that of the classes, packed transposed.
    fn logits(&self, r: &Range<usize>, c: &Range<usize>, weight: &Packed, tile: &mut Tile) {
        let bias = self.bias.map(|b| &b[c.clone()]);
        tile.linear(&self.x[r.start * self.d..r.end * self.d], self.d, weight, 0..weight.panels(), bias);
    }
}

/// The stripes of the classes: at least a tile wide, at most [`STRIPES`] of them.
pub(super) fn stripes(classes: usize) -> Vec<Range<usize>> {
    let width = classes.div_ceil(STRIPES).max(CLASSES).next_multiple_of(lanes::LANES);
    // Equal widths keep the tasks equally long.
    let width = classes.div_ceil(classes.div_ceil(width).max(1)).next_multiple_of(lanes::LANES).max(1);
    (0..classes).step_by(width).map(|c| c..(c + width).min(classes)).collect()
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

/// Adds the parts in order.
fn sum_parts(mut parts: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    if parts.is_empty() {
        return vec![0.0; len];
    }
    let mut total = parts.remove(0);
    const CHUNK: usize = 8 * 1024;
    total.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        for part in &parts {
            add(chunk, &part[i * CHUNK..][..chunk.len()]);
        }
    });
    total
}

vectorised! {
    /// The largest logit and the sum of exponentials relative to it.
    fn max_and_sum(logits: &[f32]) -> (f32, f32) {
        let max = lanes::max(logits);
        let mut sums = [0.0f32; lanes::LANES];
        let (chunks, tail) = logits.as_chunks::<{ lanes::LANES }>();
        for chunk in chunks {
            for i in 0..lanes::LANES {
                sums[i] += lanes::exp(chunk[i] - max);
            }
        }
        for (sum, &l) in sums.iter_mut().zip(tail) {
            *sum += lanes::exp(l - max);
        }
        (max, lanes::sum_tree(sums))
    }

    /// `scale · exp(logit - lse)` in place.
    fn exp_scaled(logits: &mut [f32], lse: f32, scale: f32) {
        for l in logits.iter_mut() {
            *l = lanes::exp(*l - lse) * scale;
        }
    }
}
