//! Rows in parallel, columns in vector lanes.

use rayon::prelude::*;

use super::{Mask, reference};
use crate::simd::vectorised;

/// Rows of one task.
const ROWS: usize = 64;

pub(super) fn apply(x: &mut [f32], cols: usize, mask: &Mask, row_keys: &[u64]) {
    if cols == 0 {
        return;
    }
    let (threshold, scale) = (mask.threshold(), mask.scale());
    x.par_chunks_mut(ROWS * cols).zip(row_keys.par_chunks(ROWS)).for_each(|(block, keys)| {
        for (row, &key) in block.chunks_exact_mut(cols).zip(keys) {
            apply_row(row, mask.row(key), threshold, scale);
        }
    });
}

vectorised! {
    fn apply_row(row: &mut [f32], key: [u32; 2], threshold: u32, scale: f32) {
        for (column, v) in row.iter_mut().enumerate() {
            let keep = reference::bits(key, column as u32) >= threshold;
            *v = if keep { *v * scale } else { 0.0 };
        }
    }
}
