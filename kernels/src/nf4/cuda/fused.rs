//! Products that decode on the way to the tensor cores: `fused.cu`.

use super::{OP, Operands, Pass, operands};
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source {
    name: "nf4_fused",
    text: concat!(
        include_str!("../decode.cuh"),
        include_str!("../low_rank.cuh"),
        include_str!("../passes.cuh"),
        include_str!("../fused.cu")
    ),
};

/// Outputs of a block of threads and terms of a step, as in the kernels.
pub(super) const OUTPUTS: usize = 128;
pub(super) const TERMS: usize = 64;
/// The most tokens of a block.
pub(super) const TOKENS: usize = 128;
/// Bytes of shared memory beside the steps: the table of pairs and the dynamic code.
const TABLES: usize = 256 * 16 * 8 + 256 * 4;

/// What a block takes, as in the kernels.
struct Tile {
    tokens: usize,
    /// Steps that shared memory holds.
    stages: usize,
    forward: &'static str,
    backward: &'static str,
}

/// That for so many rows.
fn tile(n: usize) -> Tile {
    match n {
        0..=32 => Tile { tokens: 32, stages: 4, forward: "forward_32", backward: "backward_32" },
        33..=64 => Tile { tokens: 64, stages: 4, forward: "forward_64", backward: "backward_64" },
        _ => Tile { tokens: TOKENS, stages: 3, forward: "forward_128", backward: "backward_128" },
    }
}

/// The product, with the terms in `splits` parts that are added in order, or fewer where there are not as many steps.
pub(super) fn product(on: &Stream, o: &Operands<'_>, splits: usize) -> Result<Tensor> {
    let (n, [outputs, terms]) = (o.x.rows(), o.extents()?);
    let steps = terms.div_ceil(TERMS).div_ceil(splits);
    let splits = terms.div_ceil(TERMS).div_ceil(steps);
    let mut y = on.result(&[n, outputs], Dtype::Bf16)?;
    if splits == 1 {
        // SAFETY: y is [n, outputs]; there are no parts.
        unsafe { launch(on, o, [y.arg_mut()?, Arg::NULL], [splits, steps])? };
        return Ok(y);
    }
    let parts = on.scratch(splits * n * outputs * size_of::<f32>())?;
    // SAFETY: there are as many parts as splits, each [n, outputs].
    unsafe { launch(on, o, [Arg::NULL, parts.arg()], [splits, steps])? };
    // SAFETY: as above.
    unsafe { add_parts(on, parts.arg(), splits, &mut y)? };
    Ok(y)
}

/// # Safety
/// One of the two results is there: y `[n, outputs]`, or parts `[splits, n, outputs]`. No split is empty.
unsafe fn launch(on: &Stream, o: &Operands<'_>, results: [Arg; 2], [splits, steps]: [usize; 2]) -> Result<()> {
    let [n, outputs] = o.shape()?;
    let Tile { tokens, stages, forward, backward } = tile(n);
    let kernel = match o.pass {
        Pass::Forward => forward,
        Pass::Backward => backward,
    };
    let grid =
        [outputs.div_ceil(OUTPUTS), n.div_ceil(tokens), splits].map(|blocks| Geometry::blocks(blocks, 1).grid[0]);
    let shared = TABLES + stages * (tokens * TERMS * 2 + OUTPUTS * TERMS / 2 + OUTPUTS * 4);
    let geometry = Geometry { grid, ..Geometry::blocks(1, 256).with_shared(shared) };
    let settings = [Arg::count(OP, n)?, Arg::count(OP, steps)?];
    let args = [&operands(o)?[..], &results, &settings].concat();
    // SAFETY: x is [n, terms] and the weight's extents are what the kernel asks for, as the choice of the regime sees to; the
    // rest is the caller's promise.
    unsafe { on.launch(&KERNELS, kernel, geometry, &args) }
}

/// Adds what the parts came to, in order, and rounds.
///
/// # Safety
/// The parts are f32, and each has as many elements as `y`, which is bfloat16.
pub(super) unsafe fn add_parts(on: &Stream, parts: Arg, splits: usize, y: &mut Tensor) -> Result<()> {
    let n = y.len();
    let args = [parts, y.arg_mut()?, Arg::U64(n as u64), Arg::count(OP, splits)?];
    // SAFETY: the caller's promise.
    unsafe { on.launch(&KERNELS, "add_parts", Geometry::elements(n), &args) }
}
