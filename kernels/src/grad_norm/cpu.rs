//! Chunks of a fixed size in parallel, eight double-precision lanes each, chunks added in order.

use rayon::prelude::*;

use crate::simd::vectorised;

/// Elements of one partial sum.
const CHUNK: usize = 16 * 1024;

pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    if values.len() <= CHUNK {
        return chunk(values);
    }
    let partial: Vec<f64> = values.par_chunks(CHUNK).map(chunk).collect();
    partial.iter().sum()
}

vectorised! {
    fn chunk(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (groups, tail) = values.as_chunks::<8>();
        for group in groups {
            for i in 0..8 {
                let v = f64::from(group[i]);
                lanes[i] = v.mul_add(v, lanes[i]);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(tail) {
            *lane = f64::from(v).mul_add(f64::from(v), *lane);
        }
        lanes.iter().sum()
    }
}
