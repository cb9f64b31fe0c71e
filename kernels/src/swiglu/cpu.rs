//! Elements in blocks, one task each; every element on its own.

use rayon::prelude::*;

use crate::simd::{lanes::exp, vectorised};

const BLOCK: usize = 16_384;

pub(super) fn forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let blocks = y.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK));
    blocks.for_each(|((y, gate), up)| forward_block(gate, up, y));
}

pub(super) fn backward(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let inputs = dy.par_chunks(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK));
    let outputs = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    inputs.zip(outputs).for_each(|(((dy, gate), up), (dgate, dup))| backward_block(dy, gate, up, dgate, dup));
}

vectorised! {
    /// The gate of every element.
    pub(crate) fn silu_in_place(x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + exp(-*x);
        }
    }

    fn forward_block(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + exp(-g)) * u;
        }
    }

    fn backward_block(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let inputs = dy.iter().zip(gate).zip(up);
        for (((&dy, &g), &u), (dgate, dup)) in inputs.zip(dgate.iter_mut().zip(dup)) {
            let s = 1.0 / (1.0 + exp(-g));
            *dup = dy * g * s;
            *dgate = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}
