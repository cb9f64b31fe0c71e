//! The device side: threads beside each other share a row, and work its key out once for all of its elements that they have.

use super::Mask;
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const OP: &str = "dropout";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Threads of a block.
const THREADS: usize = 256;

pub(super) fn apply(on: &Stream, x: &mut Tensor, mask: &Mask, row_keys: &[u64]) -> Result<()> {
    let (n, cols) = (x.rows(), x.cols());
    if x.is_empty() {
        return Ok(());
    }
    // Where a row is some fours wide, every row begins with one.
    let (kernels, accesses) = match cols.is_multiple_of(4) {
        true => (["apply_fours", "apply_fours_bf16"], cols / 4),
        false => (["apply", "apply_bf16"], cols),
    };
    let kernel = kernels[usize::from(x.dtype() == Dtype::Bf16)];
    let across = accesses.div_ceil(2).next_power_of_two().min(THREADS);
    let geometry = Geometry {
        block: [across as u32, (THREADS / across) as u32, 1],
        ..Geometry::blocks(n.div_ceil(THREADS / across), 1)
    };
    let keys = on.upload(row_keys)?;
    let args = [
        x.arg_mut()?,
        keys.arg(),
        Arg::U64(mask.stream()),
        Arg::count(OP, n)?,
        Arg::count(OP, cols)?,
        Arg::U32(mask.threshold()),
        Arg::F32(mask.scale()),
    ];
    // SAFETY: x is [n, cols] of the type of the kernel, of which cols are a multiple of four where the kernel takes fours, and there are n keys.
    unsafe { on.launch(&KERNELS, kernel, geometry, &args) }
}
