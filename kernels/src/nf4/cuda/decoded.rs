//! Products of many rows: the weight is decoded into memory, and multiplied by the device's library.

use std::ops::Range;

use super::super::{BLOCK, Nf4Weight, Rounding};
use super::dequantize::{Form, range};
use super::{Pass, fused};
use crate::cuda::{Matrix, Product, Stream};
use crate::gemm::cuda::{matrix, matrix_mut};
use crate::{Dtype, Result, Tensor};

/// The memory of a band of decoded rows where the whole weight is not decoded at once: in the backward a part of the order of
/// summation, so it is a constant.
pub(super) const BAND_BYTES: usize = 64 << 20;

/// A product in f32 with the decoded weight, in bands of its rows that take no more than `most` bytes.
pub(super) fn f32(
    on: &Stream,
    pass: Pass,
    x: &Tensor,
    weight: &Nf4Weight,
    rounding: Rounding,
    most: usize,
) -> Result<Tensor> {
    let outputs = pass.extents(weight.dimensions()?)[0];
    let mut y = on.result(&[x.rows(), outputs], Dtype::F32)?;
    in_bands(on, pass, x, weight, Form::F32(rounding), most, &mut y)?;
    Ok(y)
}

/// A product in bfloat16 with the whole decoded weight.
pub(super) fn bf16(on: &Stream, pass: Pass, x: &Tensor, weight: &Nf4Weight) -> Result<Tensor> {
    let outputs = pass.extents(weight.dimensions()?)[0];
    let mut y = on.result(&[x.rows(), outputs], Dtype::Bf16)?;
    in_bands(on, pass, x, weight, Form::Bf16, usize::MAX, &mut y)?;
    Ok(y)
}

/// The same in bands; what bands add to each other is summed in f32.
pub(super) fn bf16_in_bands(on: &Stream, pass: Pass, x: &Tensor, weight: &Nf4Weight, most: usize) -> Result<Tensor> {
    let shape = [x.rows(), pass.extents(weight.dimensions()?)[0]];
    let mut y = on.result(&shape, Dtype::Bf16)?;
    if pass == Pass::Forward {
        in_bands(on, pass, x, weight, Form::Bf16, most, &mut y)?;
        return Ok(y);
    }
    let mut sums = on.result(&shape, Dtype::F32)?;
    in_bands(on, pass, x, weight, Form::Bf16, most, &mut sums)?;
    // SAFETY: the sums are one part of the shape of y.
    unsafe { fused::add_parts(on, sums.arg()?, 1, &mut y)? };
    Ok(y)
}

/// Decodes band after band into the same memory. A band makes columns of `x · Wᵀ`, and adds to all of `dy · W`.
fn in_bands(
    on: &Stream,
    pass: Pass,
    x: &Tensor,
    weight: &Nf4Weight,
    form: Form,
    most: usize,
    y: &mut Tensor,
) -> Result<()> {
    let (n, [d_out, d_in]) = (x.rows(), weight.dimensions()?);
    let size = form.dtype().bytes();
    let rows = band(d_out, d_in * size, most);
    let scratch = on.scratch(rows * d_in * size)?;
    let w = Matrix { address: scratch.arg().address(), dtype: form.dtype(), stride: d_in, transposed: false };
    let (x, y) = (matrix(x)?, matrix_mut(y)?);
    for first in (0..d_out).step_by(rows) {
        let band = first..(first + rows).min(d_out);
        // SAFETY: the band has room where it is decoded.
        unsafe { range(on, weight, form, band.start * d_in..band.end * d_in, scratch.arg())? };
        let product = match pass {
            Pass::Forward => Product {
                rows: n,
                cols: band.len(),
                depth: d_in,
                alpha: 1.0,
                a: x,
                b: w.t(),
                beta: 0.0,
                c: from(y, &band),
            },
            Pass::Backward => {
                let beta = if first == 0 { 0.0 } else { 1.0 };
                Product { rows: n, cols: d_in, depth: band.len(), alpha: 1.0, a: from(x, &band), b: w, beta, c: y }
            }
        };
        // SAFETY: x is [n, d_in] and y [n, d_out], in the backward the other way round; the band lies in memory of its own.
        unsafe { on.multiply(&product)? };
    }
    Ok(())
}

/// The columns of a band.
fn from(matrix: Matrix, band: &Range<usize>) -> Matrix {
    Matrix { address: matrix.address.offset(band.start * matrix.dtype.bytes()), ..matrix }
}

/// Rows of a band, whole blocks of values: as many as fit, but no fewer than make a block whatever their width is.
fn band(d_out: usize, row_bytes: usize, most: usize) -> usize {
    (most / row_bytes / BLOCK * BLOCK).clamp(BLOCK, d_out.next_multiple_of(BLOCK)).min(d_out)
}
