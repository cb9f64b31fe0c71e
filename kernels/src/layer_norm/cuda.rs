//! The device side; the gradients of weight and bias in two stages of a fixed order.

use super::Saved;
use crate::cuda::rows::{self, Bands};
use crate::cuda::{Arg, Source, Stream};
use crate::{Dtype, Result, Tensor};

const OP: &str = "layer_norm";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Places for a result and its statistics.
fn results(on: &Stream, x: &Tensor) -> Result<(Tensor, Saved)> {
    let [mean, inverse_deviation] = [on.result(&[x.rows()], Dtype::F32)?, on.result(&[x.rows()], Dtype::F32)?];
    Ok((on.result(x.shape(), Dtype::F32)?, Saved { mean, inverse_deviation }))
}

/// Rows, columns and the setting of a forward.
fn settings(x: &Tensor, eps: f32) -> Result<[Arg; 3]> {
    Ok([Arg::count(OP, x.rows())?, Arg::count(OP, x.cols())?, Arg::F32(eps)])
}

pub(super) fn forward(on: &Stream, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    let (mut y, mut saved) = results(on, x)?;
    let written = [y.arg_mut()?, saved.mean.arg_mut()?, saved.inverse_deviation.arg_mut()?];
    let args = [&[x.arg()?, weight.arg()?, bias.arg()?][..], &written, &settings(x, eps)?].concat();
    // SAFETY: x and y are [n, d], weight and bias [d], the statistics [n].
    unsafe { on.launch(&KERNELS, "forward", rows::rows(x.rows(), x.cols()), &args)? };
    Ok((y, saved))
}

pub(super) fn forward_rounded(on: &Stream, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let mut y = on.result(x.shape(), Dtype::Bf16)?;
    let args = [&[x.arg()?, weight.arg()?, bias.arg()?, y.arg_mut()?][..], &settings(x, eps)?].concat();
    // SAFETY: as above.
    unsafe { on.launch(&KERNELS, "forward_rounded", rows::rows(x.rows(), x.cols()), &args)? };
    Ok(y)
}

pub(super) fn add_then_forward(
    on: &Stream,
    x: &mut Tensor,
    y: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<(Tensor, Saved)> {
    let (mut normal, mut saved) = results(on, x)?;
    let read = [x.arg_mut()?, y.arg()?, weight.arg()?, bias.arg()?];
    let written = [normal.arg_mut()?, saved.mean.arg_mut()?, saved.inverse_deviation.arg_mut()?];
    let args = [&read[..], &written, &settings(x, eps)?].concat();
    // SAFETY: as above; y is [n, d] and lies elsewhere than x, which has just become the owner of its memory.
    unsafe { on.launch(&KERNELS, "add_forward", rows::rows(x.rows(), x.cols()), &args)? };
    Ok((normal, saved))
}

pub(super) fn backward(
    on: &Stream,
    dy: &Tensor,
    x: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    [d_weight, d_bias]: [&mut Tensor; 2],
) -> Result<Tensor> {
    let (n, d) = (x.rows(), x.cols());
    let extents = [Arg::count(OP, n)?, Arg::count(OP, d)?];
    let bands = Bands::new(n, d, 2);
    let mut dx = on.result(x.shape(), Dtype::F32)?;
    let parts = on.scratch(bands.count * 2 * d * size_of::<f32>())?;
    let read = [dy.arg()?, x.arg()?, saved.mean.arg()?, saved.inverse_deviation.arg()?, weight.arg()?];
    let args = [&read[..], &[dx.arg_mut()?, parts.arg()], &extents, &[Arg::count(OP, bands.rows)?]].concat();
    // SAFETY: dy, x and dx are [n, d], the saved [n], the weight [d], parts [bands, 2, d].
    unsafe { on.launch(&KERNELS, "backward", bands.geometry, &args)? };
    let args = [parts.arg(), d_weight.arg_mut()?, d_bias.arg_mut()?, Arg::count(OP, bands.count)?, extents[1]];
    // SAFETY: as above; the gradients are [d].
    unsafe { on.launch(&KERNELS, "add_parts", rows::columns(2 * d), &args)? };
    Ok(dx)
}
