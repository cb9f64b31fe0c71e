//! The device side: rows are cut, the library multiplies codes, and factors are put to the sums.

use super::{Fp8Rows, OP, PIECE};
use crate::cuda::{Arg, Geometry, Source, Stream, rows};
use crate::gemm::cuda::{matrix, multiply};
use crate::gemm::low_rank::{LowRank, begin};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Codes and factors of the rows of a matrix.
pub(super) fn quantize(on: &Stream, x: &Tensor) -> Result<Fp8Rows> {
    let (n, d) = (x.rows(), x.cols());
    let stride = d.next_multiple_of(PIECE);
    let [mut codes, mut factors] = [on.result(&[n, stride], Dtype::U8)?, on.result(&[n], Dtype::F32)?];
    let kernel = if x.dtype() == Dtype::F32 { "quantise" } else { "quantise_bf16" };
    let extents = [Arg::count(OP, n)?, Arg::count(OP, d)?, Arg::count(OP, stride)?];
    let args = [&[x.arg()?, codes.arg_mut()?, factors.arg_mut()?][..], &extents].concat();
    // SAFETY: x is [n, d] of the kernel's type, the codes are [n, stride], the factors [n].
    unsafe { on.launch(&KERNELS, kernel, rows::rows(n, d), &args)? };
    Ok(Fp8Rows { codes, factors, cols: d })
}

/// The same with rows of zeros behind the last, up to a multiple of [`PIECE`]: the library wants them of a weight.
pub(super) fn padded(on: &Stream, weight: Fp8Rows) -> Result<Fp8Rows> {
    let [rows, stride] = [weight.codes.rows(), weight.stride()];
    let whole = rows.next_multiple_of(PIECE);
    if whole == rows {
        return Ok(weight);
    }
    let mut codes = on.result(&[whole, stride], Dtype::U8)?;
    on.fill_zero(&mut codes)?;
    on.copy(&weight.codes, &mut codes, 0)?;
    Ok(Fp8Rows { codes, ..weight })
}

/// `x · Wᵀ + bias`, of checked operands, and what is added to it. Sums have the dtype of `x`.
pub(crate) fn linear(
    on: &Stream,
    x: &Tensor,
    weight: &Fp8Rows,
    bias: Option<&Tensor>,
    update: Option<&LowRank<'_>>,
) -> Result<Tensor> {
    linear_by(on, x, weight, bias, update, on.multiplies_fp8())
}

/// The same by products of eight bits, or of the bfloat16 that they stand for.
pub(super) fn linear_by(
    on: &Stream,
    x: &Tensor,
    weight: &Fp8Rows,
    bias: Option<&Tensor>,
    update: Option<&LowRank<'_>>,
    natively: bool,
) -> Result<Tensor> {
    let (n, [d_out, _]) = (x.rows(), weight.shape());
    let (mut y, kept) = begin(on, update, &[n, d_out], [x.dtype(); 2])?;
    let cut = quantize(on, x)?;
    let [stride, depth] = [weight.codes.rows(), weight.stride()];
    let mut sums = on.result(&[n, stride], x.dtype())?;
    if natively {
        multiply(on, 1.0, [matrix(&cut.codes)?, matrix(&weight.codes)?.t()], 0.0, &mut sums, depth)?;
    } else {
        let [left, right] = [decode(on, &cut.codes)?, decode(on, &weight.codes)?];
        multiply(on, 1.0, [matrix(&left)?, matrix(&right)?.t()], 0.0, &mut sums, depth)?;
    }
    let factors = [cut.factors.arg()?, weight.factors.arg()?, bias.map_or(Ok(Arg::NULL), Tensor::arg)?];
    let extents = [Arg::count(OP, n)?, Arg::count(OP, d_out)?, Arg::count(OP, stride)?];
    let adds = Arg::U32(u32::from(kept != 0.0));
    let args = [&[sums.arg()?][..], &factors, &[y.arg_mut()?], &extents, &[adds]].concat();
    let kernel = if x.dtype() == Dtype::F32 { "finish" } else { "finish_bf16" };
    // SAFETY: sums are [n, stride] and y is [n, d_out] of the kernel's type, factors [n] and [d_out], the bias [d_out].
    unsafe { on.launch(&KERNELS, kernel, Geometry::elements(n * d_out.div_ceil(4)), &args)? };
    Ok(y)
}

/// The numbers that codes stand for.
fn decode(on: &Stream, codes: &Tensor) -> Result<Tensor> {
    let mut numbers = on.result(codes.shape(), Dtype::Bf16)?;
    let args = [codes.arg()?, numbers.arg_mut()?, Arg::U64(codes.len() as u64)];
    // SAFETY: both have that many elements.
    unsafe { on.launch(&KERNELS, "decode", Geometry::fours(codes.len()), &args)? };
    Ok(numbers)
}
