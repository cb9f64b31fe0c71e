//! The layer in one kernel each way: `tiles.cuh` says how.

use super::cuda::{Bands, Prepared};
use super::plan::Cut;
use super::{Grads, Kept, Saved, Weights};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Segments, Tensor};

const OP: &str = "lru_scan";
const FORWARD: Source = Source {
    name: "lru_scan_forward",
    text: concat!(include_str!("items.cuh"), include_str!("tiles.cuh"), include_str!("forward.cu")),
};
const BACKWARD: Source = Source {
    name: "lru_scan_backward",
    text: concat!(include_str!("items.cuh"), include_str!("tiles.cuh"), include_str!("backward.cu")),
};

/// Rows of a tile, channels and threads of a block, as in the kernels.
const TILE: usize = 64;
const GROUP: usize = 32;
const THREADS: u32 = 128;
/// Bytes of a tile in shared memory.
const BUFFER_BYTES: usize = TILE * 68 * size_of::<f32>();
/// The most inputs of a row.
const MOST_INPUTS: usize = 64;
/// Up to so many rows, blocks that take them by the 256 and all channels would be fewer than an H200 has room for at once.
const FEW_ROWS: usize = 128 * 1024;
/// The most partial sums over rows: part of the order of summation, so it is a constant. With the groups of 128 channels these
/// are twice the blocks for which an H200 has room at once.
const BANDS: usize = 128;

/// Whether the fused layer has kernels for these shapes.
pub(super) fn fits(inputs: usize, state: usize) -> bool {
    let whole = |n: usize| n > 0 && n.is_multiple_of(16);
    whole(inputs) && inputs <= MOST_INPUTS && whole(state)
}

/// How the work is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cutting {
    pub(super) rows: Cut,
    /// Whether a block of the forward takes all channels and leaves a sum; else it takes a group and leaves a part of it.
    pub(super) whole: bool,
}

impl Cutting {
    /// For few rows there are more and smaller blocks, and no chunks for so few that the time of a launch is worth more.
    pub(super) fn of(rows: usize) -> Self {
        let whole = rows > FEW_ROWS;
        let (join, chunk) = (if whole { 4 * TILE } else { TILE }, if rows <= 1024 { 1024 } else { 256 });
        Self { rows: Cut { join, chunk, tile: TILE }, whole }
    }
}

fn blocks(n: usize, buffers: usize) -> Geometry {
    Geometry::blocks(n, THREADS).with_shared(buffers * BUFFER_BYTES)
}

pub(super) fn forward(
    on: &Stream,
    x: &Tensor,
    weights: &Weights<'_>,
    segments: &Segments,
    cutting: Cutting,
) -> Result<(Tensor, Saved)> {
    let prepared = Prepared::new(on, weights.params_log, segments, cutting.rows)?;
    let (n, d, state, groups) = (x.rows(), x.cols(), prepared.state(), prepared.state().div_ceil(GROUP));
    let plan = &prepared.plan;
    let sizes = [Arg::count(OP, d)?, Arg::count(OP, state)?];
    let input = input_args(x, weights)?;
    let known = prepared.args()?;
    let mut carries = prepared.carries(on)?;
    if plan.cut.cuts(n) {
        let args = [&input[..], &known, &[carries.arg_mut()?], &sizes].concat();
        // SAFETY: the operands have the shapes that were checked; the list names rows of x and slots of the carries.
        unsafe { on.launch(&FORWARD, "ends", blocks(plan.items * groups, 3), &args)? };
        prepared.join(on, "join_chunks", &mut carries)?;
    }
    let splits = if cutting.whole { 1 } else { groups };
    let mut parts = on.result(&[splits, n, d], Dtype::F32)?;
    let output = [weights.out_re.arg()?, weights.out_im.arg()?, weights.out_bias_re.arg()?];
    let results = [carries.arg_mut()?, parts.arg_mut()?, Arg::count(OP, n)?];
    let args = [&input[..], &output, &known, &results, &sizes, &[Arg::count(OP, splits)?]].concat();
    // SAFETY: as above; the parts are [splits, n, d].
    unsafe { on.launch(&FORWARD, "forward", blocks(plan.items * splits, 4), &args)? };
    let y = sum(on, parts, Some(weights.out_bias_re).filter(|_| splits > 1), x.shape())?;
    Ok((y, Saved(Kept::Carries { carries, prepared })))
}

/// `x`, B and b.
fn input_args(x: &Tensor, weights: &Weights<'_>) -> Result<[Arg; 5]> {
    let Weights { in_re, in_im, in_bias_re, in_bias_im, .. } = weights;
    Ok([x.arg()?, in_re.arg()?, in_im.arg()?, in_bias_re.arg()?, in_bias_im.arg()?])
}

/// The sum of parts of `[n, d]`, and of a bias; one part is the sum.
fn sum(on: &Stream, parts: Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Result<Tensor> {
    let count = parts.shape()[0];
    if count == 1 {
        return parts.reshaped(shape);
    }
    let mut sum = on.result(shape, Dtype::F32)?;
    let fours = sum.len() / 4;
    let bias = bias.map_or(Ok(Arg::NULL), Tensor::arg)?;
    let sizes = [Arg::count(OP, count)?, Arg::U64(fours as u64), Arg::count(OP, sum.cols())?];
    let args = [&[parts.arg()?, bias, sum.arg_mut()?][..], &sizes].concat();
    // SAFETY: the parts are [count, n, d] and the sum [n, d], of which d is a multiple of four; the bias is [d].
    unsafe { on.launch(&FORWARD, "add_parts", Geometry::elements(fours), &args)? };
    Ok(sum)
}

pub(super) fn backward(
    on: &Stream,
    [dy, x]: [&Tensor; 2],
    carries: &Tensor,
    prepared: &Prepared,
    weights: &Weights<'_>,
    grads: &mut Grads<'_>,
) -> Result<Tensor> {
    let (n, d, state, groups) = (x.rows(), x.cols(), prepared.state(), prepared.state().div_ceil(GROUP));
    let plan = &prepared.plan;
    let (sizes, known) = ([Arg::count(OP, d)?, Arg::count(OP, state)?], prepared.args()?);
    let output = [weights.out_re.arg()?, weights.out_im.arg()?];
    let mut carries_back = prepared.carries(on)?;
    if plan.cut.cuts(n) {
        let args = [&[dy.arg()?][..], &output, &known, &[carries_back.arg_mut()?], &sizes].concat();
        // SAFETY: as of the forward.
        unsafe { on.launch(&BACKWARD, "ends_back", blocks(plan.items * groups, 2), &args)? };
        prepared.join(on, "join_chunks_back", &mut carries_back)?;
    }
    let bands = plan.items.clamp(1, BANDS);
    let parts = on.scratch(bands * part(d, state) * size_of::<f32>())?;
    let mut dx = on.result(&[groups, n, d], Dtype::F32)?;
    let operands = [&[dy.arg()?][..], &input_args(x, weights)?, &output, &known].concat();
    let results = [carries.arg()?, carries_back.arg()?, dx.arg_mut()?, parts.arg(), Arg::count(OP, n)?];
    let args = [&operands[..], &results, &sizes, &[Arg::count(OP, bands)?]].concat();
    // SAFETY: as of the forward; every band has its part, and every group of channels its part of dx.
    unsafe { on.launch(&BACKWARD, "backward", blocks(bands * groups, 5), &args)? };
    add_gradients(on, &parts, bands, prepared, weights, grads)?;
    sum(on, dx, None, x.shape())
}

/// Floats of the sums of a band: the gradients of B and C, five sums of every channel, and two of `dy`.
fn part(d: usize, state: usize) -> usize {
    4 * d * state + 5 * state + 2 * d
}

/// Adds the sums of so many bands to the gradients of the weights.
fn add_gradients(
    on: &Stream,
    parts: &Array,
    bands: usize,
    prepared: &Prepared,
    weights: &Weights<'_>,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (d, state) = (weights.in_re.cols(), prepared.state());
    let matrices = [&mut *grads.in_re, grads.in_im, grads.out_re, grads.out_im, grads.out_bias_re];
    let matrices: Vec<Arg> = matrices.into_iter().map(Tensor::arg_mut).collect::<Result<_>>()?;
    let known = [parts.arg(), Arg::count(OP, bands)?, prepared.plan.work()];
    let args = [&known[..], &matrices, &[Arg::count(OP, d)?, Arg::count(OP, state)?]].concat();
    let columns = Geometry::blocks((d * state).div_ceil(128), 256);
    let blocks = Geometry { grid: [columns.grid[0], 5, 1], ..columns };
    // SAFETY: every band has its part; the gradients are shaped like the weights.
    unsafe { on.launch(&BACKWARD, "add_weight_gradient", blocks, &args)? };
    let begin = Arg::Address(parts.arg().address().offset(4 * d * state * size_of::<f32>()));
    let sums = Bands { begin, stride: part(d, state), count: bands };
    let biases = [&mut *grads.in_bias_re, &mut *grads.in_bias_im];
    prepared.add_gradient(on, &sums, weights.params_log, grads.params_log, Some(biases))
}
