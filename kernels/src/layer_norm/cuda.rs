//! The device side: a warp for every row; the gradients of weight and bias in two stages of a fixed order.

use super::Saved;
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const OP: &str = "layer_norm";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Rows of one block, as in the kernels.
const WARPS: usize = 4;
/// Rows of one partial sum: part of the order of summation, so it is a constant.
const BAND: usize = 64;
/// Columns of one block of the sums.
const COLUMNS: usize = 128;

fn rows(n: usize) -> Geometry {
    Geometry::blocks(n.div_ceil(WARPS), 32 * WARPS as u32)
}

pub(super) fn forward(on: &Stream, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    let (n, d) = (x.rows(), x.cols());
    let mut y = on.result(x.shape(), Dtype::F32)?;
    let [mut mean, mut inverse] = [on.result(&[n], Dtype::F32)?, on.result(&[n], Dtype::F32)?];
    let args = [
        x.arg()?,
        weight.arg()?,
        bias.arg()?,
        y.arg_mut()?,
        mean.arg_mut()?,
        inverse.arg_mut()?,
        Arg::count(OP, n)?,
        Arg::count(OP, d)?,
        Arg::F32(eps),
    ];
    // SAFETY: x and y are [n, d], weight and bias [d], mean and inverse [n].
    unsafe { on.launch(&KERNELS, "forward", rows(n), &args)? };
    Ok((y, Saved { mean, inverse_deviation: inverse }))
}

pub(super) fn forward_rounded(on: &Stream, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let (n, d) = (x.rows(), x.cols());
    let mut y = on.result(x.shape(), Dtype::Bf16)?;
    let [x, weight, bias] = [x.arg()?, weight.arg()?, bias.arg()?];
    let args = [x, weight, bias, y.arg_mut()?, Arg::count(OP, n)?, Arg::count(OP, d)?, Arg::F32(eps)];
    // SAFETY: as above.
    unsafe { on.launch(&KERNELS, "forward_rounded", rows(n), &args)? };
    Ok(y)
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
    let (rows_arg, d_arg) = (Arg::count(OP, n)?, Arg::count(OP, d)?);
    let mut dx = on.result(x.shape(), Dtype::F32)?;
    let operands = [dy.arg()?, x.arg()?, saved.mean.arg()?, saved.inverse_deviation.arg()?];
    let args = [&operands[..], &[weight.arg()?, dx.arg_mut()?, rows_arg, d_arg]].concat();
    // SAFETY: dy, x and dx are [n, d], the saved [n], the weight [d].
    unsafe { on.launch(&KERNELS, "backward", rows(n), &args)? };

    let bands = n.div_ceil(BAND);
    let parts = on.scratch(bands * 2 * d * size_of::<f32>())?;
    let columns = Geometry::blocks(d.div_ceil(COLUMNS), COLUMNS as u32);
    let tiles = Geometry { grid: [Geometry::blocks(bands, 1).grid[0], columns.grid[0], 1], ..columns };
    let args = [&operands[..], &[parts.arg(), rows_arg, d_arg, Arg::U32(BAND as u32)]].concat();
    // SAFETY: as above; parts is [bands, 2, d].
    unsafe { on.launch(&KERNELS, "backward_weight", tiles, &args)? };
    let args = [parts.arg(), d_weight.arg_mut()?, d_bias.arg_mut()?, Arg::count(OP, bands)?, d_arg];
    // SAFETY: the gradients are [d].
    unsafe { on.launch(&KERNELS, "add_parts", columns, &args)? };
    Ok(dx)
}
