//! Blocks of a fixed number of rows times blocks of a fixed number of columns, one task each.

use rayon::prelude::*;

use super::BLOCK_ROWS;
use crate::gemm::cpu::{MatMut, MatRef, sgemm_block};
use crate::simd::{add, vectorised};

/// Columns of one product. A function of nothing, so that it never depends on the number of rows.
const BLOCK_COLS: usize = 1024;

/// A weight and how it is multiplied: `x · Wᵀ` if transposed, `x · W` otherwise.
pub(crate) struct Weight<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) d_out: usize,
    pub(crate) d_in: usize,
    pub(crate) transposed: bool,
}

impl Weight<'_> {
    /// Elements of a row of the input and of the output.
    fn widths(&self) -> (usize, usize) {
        if self.transposed { (self.d_in, self.d_out) } else { (self.d_out, self.d_in) }
    }

    fn columns(&self, from: usize, to: usize) -> MatRef<'_> {
        if self.transposed {
            MatRef::new(&self.values[from * self.d_in..to * self.d_in], to - from, self.d_in).t()
        } else {
            MatRef::strided(&self.values[from..], self.d_out, to - from, self.d_in)
        }
    }
}

/// `y = x · Wᵀ` or `x · W`.
pub(crate) fn product(x: &[f32], weight: Weight, y: &mut [f32]) {
    let (width, out) = weight.widths();
    if out == 0 || width == 0 {
        return;
    }
    y.par_chunks_mut(BLOCK_ROWS * out).zip(x.par_chunks(BLOCK_ROWS * width)).for_each(|(y, x)| {
        if y.len() == BLOCK_ROWS * out {
            block(x, &weight, y);
        } else {
            let mut full_x = vec![0.0; BLOCK_ROWS * width];
            let mut full_y = vec![0.0; BLOCK_ROWS * out];
            full_x[..x.len()].copy_from_slice(x);
            block(&full_x, &weight, &mut full_y);
            y.copy_from_slice(&full_y[..y.len()]);
        }
    });
}

fn block(x: &[f32], weight: &Weight, y: &mut [f32]) {
    let (width, out) = weight.widths();
    let x = MatRef::new(x, BLOCK_ROWS, width);
    for from in (0..out).step_by(BLOCK_COLS) {
        let to = (from + BLOCK_COLS).min(out);
        sgemm_block(1.0, x, weight.columns(from, to), 0.0, MatMut::strided(&mut y[from..], BLOCK_ROWS, to - from, out));
    }
}

/// Adds a row to every row.
pub(super) fn add_to_rows(row: &[f32], y: &mut [f32]) {
    if !row.is_empty() {
        y.par_chunks_mut(BLOCK_ROWS * row.len()).for_each(|y| y.chunks_exact_mut(row.len()).for_each(|y| add(y, row)));
    }
}

vectorised! {
    /// `y += factor * x`.
    pub(crate) fn add_scaled(x: &[f32], factor: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += factor * x;
        }
    }

    /// `y *= factor`.
    pub(crate) fn scale(factor: f32, y: &mut [f32]) {
        for y in y {
            *y *= factor;
        }
    }
}
