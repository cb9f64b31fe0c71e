//! The device side: four neighbours a thread.

use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: "gelu", text: include_str!("kernel.cu") };

pub(super) fn forward(on: &Stream, x: &Tensor) -> Result<Tensor> {
    let mut y = on.result(x.shape(), Dtype::F32)?;
    let args = [x.arg()?, y.arg_mut()?, Arg::U64(x.len() as u64)];
    // SAFETY: both have that many elements.
    unsafe { on.launch(&KERNELS, "forward", Geometry::fours(x.len()), &args)? };
    Ok(y)
}

pub(super) fn backward(on: &Stream, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut dx = on.result(x.shape(), Dtype::F32)?;
    let args = [dy.arg()?, x.arg()?, dx.arg_mut()?, Arg::U64(x.len() as u64)];
    // SAFETY: all three have that many elements.
    unsafe { on.launch(&KERNELS, "backward", Geometry::fours(x.len()), &args)? };
    Ok(dx)
}
