//! Products of many rows: the weight is decoded into memory, and multiplied by the device's library.
//!
//! An update is a product of its own, before the others, which are added to it
//! ([decision 8](../../../../docs/decisions/0008-where-a-low-rank-update-is-summed.md)).

use std::ops::Range;

use super::super::{BLOCK, Rounding};
use super::dequantize::{Form, range};
use super::{Operands, Pass, fused};
use crate::cuda::{Matrix, Product, Stream};
use crate::gemm::cuda::{matrix, matrix_mut};
use crate::gemm::low_rank::begin;
use crate::{Dtype, Result, Tensor};

/// A product in f32 with the decoded weight, in bands of its rows that take no more than `most` bytes.
pub(super) fn f32(on: &Stream, o: &Operands<'_>, rounding: Rounding, most: usize) -> Result<Tensor> {
    let (mut y, kept) = begin(on, o.update.as_ref(), &o.shape()?, [Dtype::F32; 2])?;
    add(on, o, rounding, most, (&mut y, kept))?;
    Ok(y)
}

/// A product of either dtype beside what a result in f32 holds already, of which a factor of 0 leaves nothing.
pub(super) fn add(
    on: &Stream,
    o: &Operands<'_>,
    rounding: Rounding,
    most: usize,
    result: (&mut Tensor, f32),
) -> Result<()> {
    let form = if o.x.dtype() == Dtype::Bf16 { Form::Bf16 } else { Form::F32(rounding) };
    in_bands(on, o, form, most, result)
}

/// A product in bfloat16 with the whole decoded weight.
pub(super) fn bf16(on: &Stream, o: &Operands<'_>) -> Result<Tensor> {
    let (mut y, kept) = begin(on, o.update.as_ref(), &o.shape()?, [Dtype::Bf16; 2])?;
    in_bands(on, o, Form::Bf16, usize::MAX, (&mut y, kept))?;
    Ok(y)
}

/// The same in bands; what bands add to each other is summed in f32.
pub(super) fn bf16_in_bands(on: &Stream, o: &Operands<'_>, most: usize) -> Result<Tensor> {
    let result = if o.pass == Pass::Forward { Dtype::Bf16 } else { Dtype::F32 };
    let (mut sums, kept) = begin(on, o.update.as_ref(), &o.shape()?, [Dtype::Bf16, result])?;
    in_bands(on, o, Form::Bf16, most, (&mut sums, kept))?;
    if result == Dtype::Bf16 {
        return Ok(sums);
    }
    let mut y = on.result(&o.shape()?, Dtype::Bf16)?;
    // SAFETY: the sums are one part of the shape of y.
    unsafe { fused::add_parts(on, sums.arg()?, 1, &mut y)? };
    Ok(y)
}

/// Decodes band after band into the same memory. A band makes columns of `x · Wᵀ`, and adds to all of `dy · W`.
fn in_bands(on: &Stream, o: &Operands<'_>, form: Form, most: usize, (y, kept): (&mut Tensor, f32)) -> Result<()> {
    let (n, [d_out, d_in]) = (o.x.rows(), o.weight.dimensions()?);
    let size = form.dtype().bytes();
    let rows = band(d_out, d_in * size, most);
    let scratch = on.scratch(rows * d_in * size)?;
    let w = Matrix { address: scratch.arg().address(), dtype: form.dtype(), stride: d_in, transposed: false };
    let (x, y) = (matrix(o.x)?, matrix_mut(y)?);
    for first in (0..d_out).step_by(rows) {
        let band = first..(first + rows).min(d_out);
        // SAFETY: the band has room where it is decoded.
        unsafe { range(on, o.weight, form, band.start * d_in..band.end * d_in, scratch.arg())? };
        let whole = Product { rows: n, cols: d_in, depth: d_in, alpha: 1.0, a: x, b: w, beta: kept, c: y };
        let product = match o.pass {
            Pass::Forward => Product { cols: band.len(), b: w.t(), c: from(y, &band), ..whole },
            Pass::Backward => {
                let beta = if first == 0 { kept } else { 1.0 };
                Product { depth: band.len(), a: from(x, &band), beta, ..whole }
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
