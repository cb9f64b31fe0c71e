//! The host side: codes are made here, and multiplied as the floats that they stand for.

use rayon::prelude::*;

use super::{Fp8Rows, LEAST_FACTOR, MOST, PIECE, code};
use crate::{Result, Tensor, gemm};

/// Codes and factors of rows.
pub(super) fn quantize<T: Sync>(
    values: &[T],
    [rows, cols]: [usize; 2],
    wide: impl Fn(&T) -> f32 + Sync,
) -> (Vec<u8>, Vec<f32>) {
    let stride = cols.next_multiple_of(PIECE);
    let (mut codes, mut factors) = (vec![0; rows * stride], vec![LEAST_FACTOR; rows]);
    let parts = values.par_chunks_exact(cols.max(1)).zip(codes.par_chunks_exact_mut(stride.max(1)));
    parts.zip(factors.par_iter_mut()).for_each(|((values, codes), factor)| {
        *factor = factor_of(values.iter().map(&wide));
        let inverse = 1.0 / *factor;
        codes.iter_mut().zip(values).for_each(|(code, v)| *code = code::encode(wide(v) * inverse));
    });
    (codes, factors)
}

/// What the numbers of a row are divided by.
fn factor_of(row: impl Iterator<Item = f32>) -> f32 {
    // The bits of magnitudes stand in the order of the magnitudes, and NaN above all.
    let most = f32::from_bits(row.map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
    if most.is_finite() { (most * (1.0 / MOST)).max(LEAST_FACTOR) } else { f32::NAN }
}

/// `x · wᵀ`, `[rows of x, rows of w]` f32.
pub(super) fn linear(x: &Fp8Rows, w: &Fp8Rows) -> Result<Tensor> {
    let mut y = gemm::linear(&numbers(x)?, &numbers(w)?, None)?;
    let (cols, factors) = (y.cols(), w.factors.f32()?);
    let rows = y.f32_mut()?.par_chunks_exact_mut(cols.max(1)).zip(x.factors.f32()?);
    rows.for_each(|(y, x)| y.iter_mut().zip(factors).for_each(|(y, w)| *y = *y * x * w));
    Ok(y)
}

/// What codes stand for, without factors.
fn numbers(rows: &Fp8Rows) -> Result<Tensor> {
    let table: [f32; 256] = std::array::from_fn(|i| code::decode(i as u8));
    let mut numbers = Tensor::dirty(rows.codes.shape());
    let pairs = numbers.f32_mut()?.par_iter_mut().zip(rows.codes.u8()?);
    pairs.for_each(|(number, code)| *number = table[usize::from(*code)]);
    Ok(numbers)
}
