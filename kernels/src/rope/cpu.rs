//! Rows in blocks, one task each.

use rayon::prelude::*;

use super::Tables;
use crate::simd::vectorised;

const ROWS: usize = 64;

pub(super) fn rotate(x: &mut [f32], positions: &[u32], tables: &Tables, heads: usize, direction: f32) {
    let width = heads * 2 * tables.half;
    if width == 0 {
        return;
    }
    x.par_chunks_mut(ROWS * width).zip(positions.par_chunks(ROWS)).for_each(|(x, positions)| {
        for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
            let at = position as usize * tables.half..(position as usize + 1) * tables.half;
            rotate_row(row, &tables.cos[at.clone()], &tables.sin[at], direction);
        }
    });
}

vectorised! {
    fn rotate_row(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        for head in row.chunks_exact_mut(2 * cos.len()) {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let (re, im, sin) = (*a, *b, sin * direction);
                *a = re * cos - im * sin;
                *b = im * cos + re * sin;
            }
        }
    }
}
