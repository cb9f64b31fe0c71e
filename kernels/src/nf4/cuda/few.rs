//! Products of a few rows: `few.cu`.

use super::super::Rounding;
use super::{OP, Operands, dequantize, operands};
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source {
    name: "nf4_few",
    text: concat!(include_str!("../decode.cuh"), include_str!("../low_rank.cuh"), include_str!("../few.cu")),
};

/// The most rows of `x`, of either type, and what the columns must be a multiple of: as in the kernels.
pub(super) const MOST_BF16: usize = 16;
pub(super) const MOST_F32: usize = 4;
pub(super) const COLUMNS_BF16: usize = 64;
pub(super) const COLUMNS_F32: usize = 8;

/// Rows of the weight that a block of threads takes.
const ROWS_BF16: usize = 32;
const ROWS_F32: usize = 16;

/// `x · Wᵀ` of up to [`MOST_BF16`] rows.
pub(super) fn bf16(on: &Stream, o: &Operands<'_>) -> Result<Tensor> {
    let [n, d_out] = o.shape()?;
    let kernel = if n <= MOST_BF16 / 2 { "few_8" } else { "few_16" };
    let mut y = on.result(&[n, d_out], Dtype::Bf16)?;
    let args = [&operands(o)?[..], &[y.arg_mut()?, Arg::count(OP, n)?]].concat();
    // SAFETY: x is [n, d_in], y [n, d_out], and n no more than the kernel takes; d_in is a multiple of 64.
    unsafe { on.launch(&KERNELS, kernel, Geometry::blocks(d_out.div_ceil(ROWS_BF16), 256), &args)? };
    Ok(y)
}

/// The same of up to [`MOST_F32`] rows, without dropping a bit of the decoded values.
pub(super) fn f32(on: &Stream, o: &Operands<'_>, rounding: Rounding) -> Result<Tensor> {
    let [n, d_out] = o.shape()?;
    let mut y = on.result(&[n, d_out], Dtype::F32)?;
    let settings = [dequantize::code(rounding), y.arg_mut()?, Arg::count(OP, n)?];
    let args = [&operands(o)?[..], &settings].concat();
    // SAFETY: as above; d_in is a multiple of 8.
    unsafe { on.launch(&KERNELS, "few_f32", Geometry::blocks(d_out.div_ceil(ROWS_F32), 128), &args)? };
    Ok(y)
}
