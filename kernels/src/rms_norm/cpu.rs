//! Rows in blocks of a fixed size, one task each.

use rayon::prelude::*;

use crate::simd::{dot, vectorised};

/// Rows of one task: part of the order of summation of `dw`, so it is a constant.
const ROWS: usize = 64;

pub(super) fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], scale: &mut [f32]) {
    let d = w.len();
    if d == 0 {
        return;
    }
    let blocks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(scale.par_chunks_mut(ROWS));
    blocks.for_each(|((y, x), scale)| {
        for ((y, x), scale) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(scale) {
            *scale = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            scaled_product(x, w, *scale, y);
        }
    });
}

pub(super) fn backward_input(dy: &[f32], x: &[f32], scale: &[f32], w: &[f32], dx: &mut [f32]) {
    let d = w.len();
    if d == 0 {
        return;
    }
    let blocks = dx.par_chunks_mut(ROWS * d).zip(dy.par_chunks(ROWS * d)).zip(x.par_chunks(ROWS * d));
    blocks.zip(scale.par_chunks(ROWS)).for_each(|(((dx, dy), x), scale)| {
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(scale);
        for (((dx, dy), x), &scale) in rows {
            scaled_product(dy, w, scale, dx);
            let pull = dot(dx, x) * scale * scale / d as f32;
            subtract_scaled(x, pull, dx);
        }
    });
}

pub(super) fn backward_gain(dy: &[f32], x: &[f32], scale: &[f32], dw: &mut [f32]) {
    let d = dw.len();
    if d == 0 {
        return;
    }
    let blocks = dy.par_chunks(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(scale.par_chunks(ROWS));
    let partial: Vec<Vec<f32>> = blocks
        .map(|((dy, x), scale)| {
            let mut sum = vec![0.0; d];
            for ((dy, x), &scale) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(scale) {
                add_scaled_product(dy, x, scale, &mut sum);
            }
            sum
        })
        .collect();
    for block in partial {
        dw.iter_mut().zip(block).for_each(|(total, part)| *total += part);
    }
}

vectorised! {
    fn scaled_product(a: &[f32], b: &[f32], scale: f32, out: &mut [f32]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = a * scale * b;
        }
    }

    fn add_scaled_product(a: &[f32], b: &[f32], scale: f32, out: &mut [f32]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out += a * (b * scale);
        }
    }

    fn subtract_scaled(x: &[f32], factor: f32, out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out -= x * factor;
        }
    }
}
