//! The device side: four neighbours a thread.

use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: "swiglu", text: include_str!("kernel.cu") };

pub(super) fn forward(on: &Stream, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut y = on.result(gate.shape(), gate.dtype())?;
    let kernel = if gate.dtype() == Dtype::F32 { "forward" } else { "forward_bf16" };
    let args = [gate.arg()?, up.arg()?, y.arg_mut()?, Arg::U64(gate.len() as u64)];
    // SAFETY: all three have that many elements of one type, which is that of the kernel.
    unsafe { on.launch(&KERNELS, kernel, Geometry::fours(gate.len()), &args)? };
    Ok(y)
}

pub(super) fn backward(on: &Stream, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let [mut dgate, mut dup] = [on.result(gate.shape(), gate.dtype())?, on.result(gate.shape(), gate.dtype())?];
    let kernel = if gate.dtype() == Dtype::F32 { "backward" } else { "backward_bf16" };
    let n = Arg::U64(gate.len() as u64);
    let args = [dy.arg()?, gate.arg()?, up.arg()?, dgate.arg_mut()?, dup.arg_mut()?, n];
    // SAFETY: all five have that many elements of one type, which is that of the kernel.
    unsafe { on.launch(&KERNELS, kernel, Geometry::fours(gate.len()), &args)? };
    Ok((dgate, dup))
}
