//! The device side: four neighbours a thread.

use super::{Dtype, Tensor};
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Error, Result};

const KERNELS: Source = Source { name: "tensor", text: include_str!("kernel.cu") };

/// `a += b`, of one shape, in f32; `b` may be bfloat16.
pub(super) fn add(on: &Stream, a: &mut Tensor, b: &Tensor) -> Result<()> {
    let n = a.len();
    let args = [a.arg_mut()?, b.arg()?, Arg::U64(n as u64)];
    let kernel = if b.dtype() == Dtype::F32 { "add" } else { "add_bf16" };
    // SAFETY: both have n elements, those of b of the kernel's type.
    unsafe { on.launch(&KERNELS, kernel, Geometry::fours(n), &args) }
}

/// The values in another type.
pub(super) fn cast(op: &'static str, on: &Stream, x: &Tensor, dtype: Dtype) -> Result<Tensor> {
    let kernel = match (x.dtype(), dtype) {
        (Dtype::F32, Dtype::Bf16) => "narrow",
        (Dtype::Bf16, Dtype::F32) => "widen",
        (from, to) => {
            return Err(Error::Setting {
                op,
                what: format!("a device cannot make {to:?} of {from:?}, but f32 of bf16 and back"),
            });
        }
    };
    let mut y = on.result(x.shape(), dtype)?;
    let args = [x.arg()?, y.arg_mut()?, Arg::U64(x.len() as u64)];
    // SAFETY: both have that many elements, of the types that the kernel reads and writes.
    unsafe { on.launch(&KERNELS, kernel, Geometry::fours(x.len()), &args)? };
    Ok(y)
}
