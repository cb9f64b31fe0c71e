//! Chunks in parallel, elements in vector lanes.

use rayon::prelude::*;

use crate::simd::{lanes, vectorised};

/// Elements of one task.
const CHUNK: usize = 8 * 1024;

pub(super) fn forward(x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward_chunk(x, y));
}

pub(super) fn backward(dy: &[f32], x: &[f32], dx: &mut [f32]) {
    let chunks = dx.par_chunks_mut(CHUNK).zip(dy.par_chunks(CHUNK)).zip(x.par_chunks(CHUNK));
    chunks.for_each(|((dx, dy), x)| backward_chunk(dy, x, dx));
}

/// `Φ(x)`.
#[inline(always)]
fn distribution(x: f32) -> f32 {
    lanes::erf(x * std::f32::consts::FRAC_1_SQRT_2).mul_add(0.5, 0.5)
}

vectorised! {
    /// The activation of every element.
    pub(crate) fn in_place(x: &mut [f32]) {
        for x in x {
            *x *= distribution(*x);
        }
    }

    fn forward_chunk(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * distribution(x);
        }
    }

    fn backward_chunk(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            let density = DENSITY_AT_ZERO * lanes::exp(-0.5 * x * x);
            *dx = dy * x.mul_add(density, distribution(x));
        }
    }
}
