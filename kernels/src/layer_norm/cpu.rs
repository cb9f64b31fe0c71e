//! Rows in blocks of a fixed size, one task each; the blocks' parts of the weight gradient are added in order.

use half::bf16;
use rayon::prelude::*;

use crate::simd::{add, lanes, vectorised};

/// Rows of one task: part of the order of summation, so it is a constant.
const ROWS: usize = 64;

pub(super) fn forward(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32], [mean, inverse]: [&mut [f32]; 2]) {
    let d = w.len();
    if d == 0 {
        return;
    }
    let means = mean.par_chunks_mut(ROWS).zip(inverse.par_chunks_mut(ROWS));
    let blocks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d));
    blocks.zip(means).for_each(|((y, x), (mean, inverse))| forward_block(x, w, b, eps, y, mean, inverse));
}

/// The same, rounded to bfloat16 while a row is in the cache.
pub(super) fn forward_rounded(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [bf16]) {
    let d = w.len();
    if d == 0 {
        return;
    }
    let blocks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d));
    blocks.for_each_init(|| vec![0.0; d], |row, (y, x)| forward_rounded_block(x, w, b, eps, y, row));
}

/// The operands of the backward pass.
pub(super) struct Rows<'a> {
    pub(super) dy: &'a [f32],
    pub(super) x: &'a [f32],
    /// The means and the inverse deviations.
    pub(super) statistics: [&'a [f32]; 2],
    pub(super) weight: &'a [f32],
}

pub(super) fn backward(rows: &Rows<'_>, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
    let d = rows.weight.len();
    if d == 0 {
        return;
    }
    let [mean, inverse] = rows.statistics;
    let saved = mean.par_chunks(ROWS).zip(inverse.par_chunks(ROWS));
    let blocks = dx.par_chunks_mut(ROWS * d).zip(rows.dy.par_chunks(ROWS * d)).zip(rows.x.par_chunks(ROWS * d));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = blocks
        .zip(saved)
        .map(|(((dx, dy), x), (mean, inverse))| {
            let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
            backward_block(dy, x, mean, inverse, rows.weight, dx, &mut dw, &mut db);
            (dw, db)
        })
        .collect();
    for (dw_part, db_part) in &parts {
        add(dw, dw_part);
        add(db, db_part);
    }
}

/// Normalises one row; returns its mean and one over its standard deviation.
#[inline(always)]
fn normalise(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) -> [f32; 2] {
    let d = w.len() as f32;
    let mean = lanes::sum(x) / d;
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x - mean;
    }
    let inverse = 1.0 / (lanes::dot(y, y) / d + eps).sqrt();
    for ((y, &w), &b) in y.iter_mut().zip(w).zip(b) {
        *y = (*y * inverse).mul_add(w, b);
    }
    [mean, inverse]
}

vectorised! {
    fn forward_block(
        x: &[f32],
        w: &[f32],
        b: &[f32],
        eps: f32,
        y: &mut [f32],
        mean: &mut [f32],
        inverse: &mut [f32],
    ) {
        let d = w.len();
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for ((x, y), (mean, inverse)) in rows.zip(mean.iter_mut().zip(inverse.iter_mut())) {
            [*mean, *inverse] = normalise(x, w, b, eps, y);
        }
    }

    fn forward_rounded_block(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [bf16], row: &mut [f32]) {
        for (x, y) in x.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
            normalise(x, w, b, eps, row);
            for (y, &wide) in y.iter_mut().zip(&*row) {
                *y = bf16::from_bits(lanes::bf16_bits(wide));
            }
        }
    }

    fn backward_block(
        dy: &[f32],
        x: &[f32],
        mean: &[f32],
        inverse: &[f32],
        w: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
        db: &mut [f32],
    ) {
        let d = w.len();
        let mut normal = vec![0.0f32; d];
        let rows = dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((dy, x), dx), (&mean, &inverse)) in rows.zip(mean.iter().zip(inverse)) {
            for i in 0..d {
                normal[i] = (x[i] - mean) * inverse;
                dw[i] = dy[i].mul_add(normal[i], dw[i]);
                db[i] += dy[i];
                dx[i] = dy[i] * w[i];
            }
            let shift = lanes::sum(dx) / d as f32;
            let pull = lanes::dot(dx, &normal) / d as f32;
            for (dx, &normal) in dx.iter_mut().zip(&normal) {
                *dx = (*dx - shift - normal * pull) * inverse;
            }
        }
    }
}
