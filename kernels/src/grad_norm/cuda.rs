//! The device side: sums of chunks of all tensors by one launch, which another adds in a fixed order.

use crate::cuda::{Arg, Geometry, Plain, Source, Stream};
use crate::{Dtype, Error, Result, Tensor};

const OP: &str = "grad_norm";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Elements of one partial sum, as in the kernel: part of the order of summation.
const CHUNK: usize = 4096;
/// Threads that sum a chunk.
const THREADS: u32 = 256;
/// Threads that add the sums of chunks: part of the order too.
const LAST_THREADS: u32 = 1024;

/// A tensor, as the kernel knows it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Part {
    address: u64,
    len: u64,
    /// The chunks of the tensors before.
    first: u64,
}

// SAFETY: numbers without padding.
unsafe impl Plain for Part {}

/// The norm, as the bytes of an f64, and the factor.
pub(super) fn clip(on: &Stream, tensors: &[(&str, &Tensor)], max_norm: f64) -> Result<[Tensor; 2]> {
    let mut chunks = 0;
    let mut parts = Vec::with_capacity(tensors.len());
    for (_, tensor) in tensors {
        parts.push(Part { address: tensor.arg()?.address().0, len: tensor.len() as u64, first: chunks as u64 });
        chunks += tensor.len().div_ceil(CHUNK);
    }
    let table = on.upload(&parts)?;
    let sums = on.scratch(chunks * size_of::<f64>())?;
    let args = [table.arg(), Arg::count(OP, parts.len())?, sums.arg()];
    // SAFETY: the table holds addresses and lengths of the tensors, all on this device, and there is a sum for every chunk.
    unsafe { on.launch(&KERNELS, "sum_squares", Geometry::blocks(chunks, THREADS), &args)? };

    let [mut norm, mut factor] = [on.result(&[size_of::<f64>()], Dtype::U8)?, on.result(&[1], Dtype::F32)?];
    let max_norm = Arg::U64(max_norm.to_bits());
    let args = [sums.arg(), Arg::count(OP, chunks)?, max_norm, norm.arg_mut()?, factor.arg_mut()?];
    // SAFETY: as above; the norm has the bytes of an f64, the factor is one f32.
    unsafe { on.launch(&KERNELS, "finish", Geometry::blocks(1, LAST_THREADS), &args)? };
    Ok([norm, factor])
}

/// The norm, once it is there.
pub(super) fn read(norm: &Tensor) -> Result<f64> {
    let there = norm.to_host()?;
    let bytes = there.u8()?.try_into().map_err(|_| Error::shape(OP, "norm", there.shape(), "[8]"))?;
    Ok(f64::from_ne_bytes(bytes))
}
