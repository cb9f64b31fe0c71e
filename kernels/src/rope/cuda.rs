//! The device side.

use super::{OP, Tables};
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Threads of a block.
const THREADS: usize = 256;
/// Most of them in the third extent.
const MOST_ROWS: usize = 64;

pub(super) fn rotate(
    on: &Stream,
    x: &mut Tensor,
    positions: &[u32],
    tables: &Tables,
    heads: usize,
    direction: f32,
) -> Result<()> {
    if x.is_empty() {
        return Ok(());
    }
    let (n, half) = (positions.len(), tables.half);
    let [cosines, sines] = &*tables.on(on)?;
    let positions = on.upload(positions)?;
    let operands = [x.arg_mut()?, positions.arg(), cosines.arg(), sines.arg()];
    let extents = [Arg::count(OP, n)?, Arg::count(OP, heads)?, Arg::count(OP, half)?];
    let args = [&operands[..], &extents, &[Arg::F32(direction)]].concat();
    let kernel = if x.dtype() == Dtype::F32 { "rotate" } else { "rotate_bf16" };
    // SAFETY: x is [n, heads * 2 * half] of the kernel's type; every position is a row of the tables, which are [positions, half].
    unsafe { on.launch(&KERNELS, kernel, geometry(n, heads, half), &args) }
}

/// Quads of half a head, as many heads beside each other as fit, and rows where heads are few.
fn geometry(n: usize, heads: usize, half: usize) -> Geometry {
    let quads = half.div_ceil(4).min(THREADS);
    let heads = heads.min(THREADS / quads);
    let rows = (THREADS / (quads * heads)).min(MOST_ROWS);
    Geometry { block: [quads, heads, rows].map(|extent| extent as u32), ..Geometry::blocks(n.div_ceil(rows), 1) }
}
