//! Chunks of a fixed size in parallel, elements in vector lanes. Memory-bound: 16 bytes read, 12 written per element.

use rayon::prelude::*;

use super::{Factors, reference};
use crate::simd::vectorised;

/// Elements of one task.
const CHUNK: usize = 16 * 1024;

pub(super) fn step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
    if p.len() <= CHUNK {
        return step_chunk(p, g, m, v, factors);
    }
    let chunks = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    chunks.zip(moments).for_each(|((p, g), (m, v))| step_chunk(p, g, m, v, factors));
}

vectorised! {
    fn step_chunk(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
            (*p, *m, *v) = reference::element(*p, *g, *m, *v, &factors);
        }
    }
}
