//! The linear layer with a four-bit weight, decoded tile by tile.

use super::{BLOCK, Nf4Weight, Rounding, cpu};
use crate::gemm::{linear as forward, linear_backward_input as backward_input};
use crate::{Error, Result, Tensor};

/// About as many decoded values as stay in a second-level cache.
const TILE: usize = 1 << 18;

/// Applies a frozen four-bit weight: `y = x · Wᵀ`, decoding tile by tile; never holds the whole weight decoded.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32
/// - `weight`: `[d_out, d_in]`
/// - returns `[n, d_out]` f32
///
/// # Gradient
/// [`linear_backward_input`]; the weight is frozen and receives none.
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] unless `x` is f32.
pub fn linear(x: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let (d_out, d_in) = dimensions(weight)?;
    x.expect_shape("nf4", "x", &[x.rows(), d_in])?;
    let mut y = Tensor::result("nf4", &[x.rows(), d_out])?;
    for_tiles(weight, rounding, |first, tile| {
        let part = forward(x, tile, None)?; // [n, rows of the tile]
        let width = tile.rows();
        for (y, part) in y.f32_mut()?.chunks_exact_mut(d_out).zip(part.f32()?.chunks_exact(width)) {
            y[first..first + width].copy_from_slice(part);
        }
        Ok(())
    })?;
    Ok(y)
}

/// The gradient of [`linear`] with respect to its input: `dx = dy · W`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32
/// - returns `[n, d_in]` f32
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] unless `dy` is f32.
pub fn linear_backward_input(dy: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let (d_out, d_in) = dimensions(weight)?;
    dy.expect_shape("nf4", "dy", &[dy.rows(), d_out])?;
    let mut dx = Tensor::result("nf4", &[dy.rows(), d_in])?;
    dx.f32_mut()?.fill(0.0);
    for_tiles(weight, rounding, |first, tile| {
        let width = tile.rows();
        let columns = dy.f32()?.chunks_exact(d_out).flat_map(|row| row[first..first + width].iter().copied()).collect();
        let part = backward_input(&Tensor::from_f32(&[dy.rows(), width], columns)?, tile)?;
        dx.f32_mut()?.iter_mut().zip(part.f32()?).for_each(|(total, part)| *total += part);
        Ok(())
    })?;
    Ok(dx)
}

/// Decodes groups of whole rows, in order, and hands each to `work` with the index of its first row.
fn for_tiles(weight: &Nf4Weight, rounding: Rounding, mut work: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
    let (d_out, d_in) = dimensions(weight)?;
    if d_out * d_in == 0 {
        return Ok(());
    }
    // Tiles begin at a block boundary: a multiple of 64 rows always does.
    let rows = (TILE / d_in / BLOCK).max(1) * BLOCK;
    for first in (0..d_out).step_by(rows) {
        let mut tile = Tensor::zeros(&[rows.min(d_out - first), d_in]);
        cpu::dequantize(weight, rounding, first * d_in / BLOCK, tile.f32_mut()?);
        work(first, &tile)?;
    }
    Ok(())
}

fn dimensions(weight: &Nf4Weight) -> Result<(usize, usize)> {
    match weight.shape() {
        &[d_out, d_in] => Ok((d_out, d_in)),
        other => Err(Error::shape("nf4", "weight", other, "[d_out, d_in]")),
    }
}
