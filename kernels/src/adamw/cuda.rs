//! The device side: all parameters in one launch.

use super::{Factors, Update};
use crate::cuda::{Arg, Geometry, Plain, Source, Stream};
use crate::{Result, Tensor};

const OP: &str = "adamw";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Threads of a block.
const THREADS: usize = 256;
/// Elements of a block.
const CHUNK: usize = 4 * THREADS;

/// A parameter, as the kernel knows it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Part {
    /// Parameter, gradient and both moments.
    addresses: [u64; 4],
    len: u64,
    /// The chunks of the parameters before.
    first: u64,
    factors: Factors,
}

// SAFETY: numbers without padding.
unsafe impl Plain for Part {}

/// What changes from step to step lies in an uploaded table, not in the arguments: a launch that was recorded serves later
/// steps too.
pub(super) fn step(
    on: &Stream,
    updates: &mut [Update<'_>],
    factors: &[Factors],
    clipping: Option<&Tensor>,
) -> Result<()> {
    let mut chunks = 0;
    let mut parts = Vec::with_capacity(updates.len());
    for (Update { param, grad, state, .. }, &factors) in updates.iter_mut().zip(factors) {
        let len = param.len();
        let args = [param.arg_mut()?, grad.arg()?, state.m.arg_mut()?, state.v.arg_mut()?];
        parts.push(Part { addresses: args.map(|arg| arg.address().0), len: len as u64, first: chunks as u64, factors });
        chunks += len.div_ceil(CHUNK);
    }
    let table = on.upload(&parts)?;
    let clipping = clipping.map_or(Ok(Arg::NULL), Tensor::arg)?;
    let args = [table.arg(), Arg::count(OP, parts.len())?, clipping];
    // SAFETY: the table holds the addresses of tensors on this device, which have its lengths and are borrowed until the
    // kernel is asked for, and what is written is nobody else's; the clipping is one f32.
    unsafe { on.launch(&KERNELS, "step", Geometry::blocks(chunks, THREADS as u32), &args) }
}
