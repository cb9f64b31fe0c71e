//! The device side; the gradient of the gain in two stages of a fixed order.

use super::{OP, Saved};
use crate::cuda::rows::{self, Bands};
use crate::cuda::{Arg, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// With a result of that dtype.
pub(super) fn forward(on: &Stream, x: &Tensor, w: &Tensor, eps: f32, dtype: Dtype) -> Result<(Tensor, Saved)> {
    let (n, d) = (x.rows(), x.cols());
    let [mut y, mut scale] = [on.result(x.shape(), dtype)?, on.result(&[n], Dtype::F32)?];
    let kernel = if dtype == Dtype::F32 { "forward" } else { "forward_rounded" };
    let settings = [Arg::count(OP, n)?, Arg::count(OP, d)?, Arg::F32(eps)];
    let args = [&[x.arg()?, w.arg()?, y.arg_mut()?, scale.arg_mut()?][..], &settings].concat();
    // SAFETY: x and y are [n, d], w is [d] and the scale [n]; y is of the kernel's type.
    unsafe { on.launch(&KERNELS, kernel, rows::rows(n, d), &args)? };
    Ok((y, Saved { scale }))
}

pub(super) fn add_then_forward(
    on: &Stream,
    x: &mut Tensor,
    y: &Tensor,
    w: &Tensor,
    eps: f32,
    dtype: Dtype,
) -> Result<(Tensor, Saved)> {
    let (n, d) = (x.rows(), x.cols());
    let [mut normal, mut scale] = [on.result(x.shape(), dtype)?, on.result(&[n], Dtype::F32)?];
    let kernel = if dtype == Dtype::F32 { "add_forward" } else { "add_forward_rounded" };
    let settings = [Arg::count(OP, n)?, Arg::count(OP, d)?, Arg::F32(eps)];
    let operands = [x.arg_mut()?, y.arg()?, w.arg()?, normal.arg_mut()?, scale.arg_mut()?];
    // SAFETY: as above; y is [n, d] and lies elsewhere than x, which has just become the owner of its memory.
    unsafe { on.launch(&KERNELS, kernel, rows::rows(n, d), &[&operands[..], &settings].concat())? };
    Ok((normal, Saved { scale }))
}

pub(super) fn backward(
    on: &Stream,
    dy: &Tensor,
    x: &Tensor,
    saved: &Saved,
    w: &Tensor,
    dw: Option<&mut Tensor>,
) -> Result<Tensor> {
    let (n, d) = (x.rows(), x.cols());
    let mut dx = on.result(x.shape(), Dtype::F32)?;
    let operands = [dy.arg()?, x.arg()?, saved.scale.arg()?, w.arg()?, dx.arg_mut()?];
    let extents = [Arg::count(OP, n)?, Arg::count(OP, d)?];
    let Some(dw) = dw else {
        let args = [&operands[..], &extents].concat();
        // SAFETY: dy, x and dx are [n, d], the scale [n], w is [d].
        unsafe { on.launch(&KERNELS, "backward_input", rows::rows(n, d), &args)? };
        return Ok(dx);
    };
    let bands = Bands::new(n, d, 1);
    let parts = on.scratch(bands.count * d * size_of::<f32>())?;
    let args = [&operands[..], &[parts.arg()], &extents, &[Arg::count(OP, bands.rows)?]].concat();
    // SAFETY: as above; parts is [bands, d].
    unsafe { on.launch(&KERNELS, "backward", bands.geometry, &args)? };
    let args = [parts.arg(), dw.arg_mut()?, Arg::count(OP, bands.count)?, extents[1]];
    // SAFETY: as above; dw is [d].
    unsafe { on.launch(&KERNELS, "add_parts", rows::columns(d), &args)? };
    Ok(dx)
}
