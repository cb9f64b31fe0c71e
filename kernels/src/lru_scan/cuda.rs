//! The device side: coefficients, the recurrence alone, and the layer made of it and of products; or the fused layer, where
//! the shapes allow it.

use super::fused;
use super::plan::{Cut, Plan};
use super::{Grads, Saved, States, Weights, project, project_back, read_out, read_out_back};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Error, Result, Segments, Tensor};

const OP: &str = "lru_scan";
const CHANNELS: Source =
    Source { name: "lru_scan_channels", text: concat!(include_str!("items.cuh"), include_str!("channels.cu")) };
const SCAN: Source = Source {
    name: "lru_scan_scan",
    text: concat!(include_str!("items.cuh"), include_str!("scan.cuh"), include_str!("scan.cu")),
};

/// Rows of the table of coefficients, as in `items.cuh`.
const TABLE_ROWS: usize = 13;
/// Threads of a block of the recurrence, which are its rows too, forward and backward.
const STEP: usize = 256;
const STEP_BACK: usize = 128;
/// Threads of a block that share a row, and rows of a thread.
const LANES: usize = 8;
const ROWS: usize = 8;
/// The most partial sums over rows: part of the order of summation, so it is a constant.
const BANDS: usize = 256;
/// Up to so many rows blocks are better small than full: with the slices of 128 channels a card has room for all of them.
const FEW_ROWS: usize = 32 * 1024;

/// What kernels know of coefficients and rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    /// λ, γ and powers of λ: `[13, S]`.
    pub(super) table: Tensor,
    pub(super) plan: Plan,
}

impl Prepared {
    pub(super) fn new(on: &Stream, params_log: &Tensor, segments: &Segments, cut: Cut) -> Result<Self> {
        let state = params_log.cols();
        let mut table = on.result(&[TABLE_ROWS, state], Dtype::F32)?;
        let chunk = Arg::count(OP, cut.chunk)?;
        let args = [params_log.arg()?, table.arg_mut()?, Arg::count(OP, state)?, chunk];
        // SAFETY: the logarithms are [3, state], the table [13, state].
        unsafe { on.launch(&CHANNELS, "coefficients", Geometry::blocks(state.div_ceil(128), 128), &args)? };
        Ok(Self { table, plan: Plan::new(on, segments, cut)? })
    }

    pub(super) fn state(&self) -> usize {
        self.table.cols()
    }

    /// Where kernels read the table, the list of items and the marks.
    pub(super) fn args(&self) -> Result<[Arg; 3]> {
        Ok([self.table.arg()?, self.plan.work(), self.plan.starts()])
    }

    /// Room for the states between items: `[slots, 2, S]`, of which only those that are needed are ever written.
    pub(super) fn carries(&self, on: &Stream) -> Result<Tensor> {
        on.result(&[self.plan.slots, 2, self.state()], Dtype::F32)
    }

    /// Turns states at the ends of chunks, each from nothing, into the true ones.
    pub(super) fn join(&self, on: &Stream, kernel: &'static str, carries: &mut Tensor) -> Result<()> {
        let [table, work, _] = self.args()?;
        let args = [table, work, carries.arg_mut()?, Arg::count(OP, self.state())?];
        // SAFETY: the carries are [slots, 2, state], and the list names no other slots.
        unsafe { on.launch(&CHANNELS, kernel, Geometry::blocks(self.plan.items, 128), &args) }
    }

    /// Adds the gradients of the logarithms and, if they are given, of the biases from sums per channel, of which every band
    /// has three, or five.
    pub(super) fn add_gradient(
        &self,
        on: &Stream,
        sums: &Bands,
        params_log: &Tensor,
        d_params_log: &mut Tensor,
        d_bias: Option<[&mut Tensor; 2]>,
    ) -> Result<()> {
        let [table, work, _] = self.args()?;
        let [d_bias_re, d_bias_im] = match d_bias {
            Some([re, im]) => [re.arg_mut()?, im.arg_mut()?],
            None => [Arg::NULL; 2],
        };
        let bands = Arg::count(OP, sums.count)?;
        let operands = [sums.begin, Arg::U64(sums.stride as u64), bands, work, params_log.arg()?, table];
        let results = [d_params_log.arg_mut()?, d_bias_re, d_bias_im, Arg::count(OP, self.state())?];
        let args = [&operands[..], &results].concat();
        let blocks = Geometry::blocks(self.state().div_ceil(32), 256);
        // SAFETY: the logarithms and their gradients are [3, state], the biases' gradients [state]; every band has its sums.
        unsafe { on.launch(&CHANNELS, "add_gradient", blocks, &args) }
    }
}

/// Partial sums over rows, one after the other in memory.
pub(super) struct Bands {
    /// The first sum of the first band.
    pub(super) begin: Arg,
    /// Floats from one band to the next.
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// How a block takes channels: how many, and the kernels that take as many. Rows of 16 bytes allow four of a thread.
struct Slices {
    channels: usize,
    state: usize,
}

impl Slices {
    fn of(state: usize) -> Self {
        Self { channels: if state.is_multiple_of(4) { 4 * LANES } else { LANES }, state }
    }

    fn count(&self) -> usize {
        self.state.div_ceil(self.channels)
    }

    /// The kernel for these, of two.
    fn kernel(&self, [four, any]: [&'static str; 2]) -> &'static str {
        if self.channels > LANES { four } else { any }
    }

    /// Blocks that share the slices of so many items and hold their rows of so many complex tensors, and the last arguments
    /// of their kernel.
    fn launch(&self, items: usize, threads: usize, tensors: usize) -> Result<(Geometry, [Arg; 2])> {
        let sizes = [Arg::count(OP, self.state)?, Arg::count(OP, self.count())?];
        let bytes = tensors * ROWS * threads * (self.channels / LANES) * 2 * size_of::<f32>();
        Ok((Geometry::blocks(items * self.count(), threads as u32).with_shared(bytes), sizes))
    }
}

/// How rows are cut for the recurrence alone. Chunks are so long that blocks just fill a card, since every chunk is read twice.
pub(super) fn scan_cut(rows: usize, state: usize) -> Cut {
    let chunk = (rows * Slices::of(state).count() / 256).next_power_of_two().clamp(STEP, 4096);
    let chunk = if rows <= 4 * STEP { chunk.max(rows.next_power_of_two()) } else { chunk };
    Cut { join: if rows <= FEW_ROWS { STEP / 4 } else { STEP }, chunk, tile: chunk }
}

/// The states of projected inputs `[n, S]`.
pub(super) fn scan(on: &Stream, prepared: &Prepared, v: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let (plan, slices) = (&prepared.plan, Slices::of(prepared.state()));
    let (geometry, sizes) = slices.launch(plan.items, STEP, 1)?;
    let [table, work, starts] = prepared.args()?;
    let operands = [v[0].arg()?, v[1].arg()?, table, work, starts];
    let mut carries = prepared.carries(on)?;
    if plan.cut.cuts(plan.rows) {
        let args = [&operands[..], &[carries.arg_mut()?], &sizes].concat();
        let kernel = slices.kernel(["scan_ends", "scan_ends_any"]);
        // SAFETY: v is [n, state], the table [13, state], the carries [slots, 2, state]; the list names no other rows and
        // slots.
        unsafe { on.launch(&SCAN, kernel, geometry, &args)? };
        prepared.join(on, "join_chunks", &mut carries)?;
    }
    let [mut re, mut im] = [on.result(v[0].shape(), Dtype::F32)?, on.result(v[0].shape(), Dtype::F32)?];
    let args = [&operands[..], &[carries.arg()?, re.arg_mut()?, im.arg_mut()?], &sizes].concat();
    // SAFETY: as above; the states are [n, state].
    unsafe { on.launch(&SCAN, slices.kernel(["scan", "scan_any"]), geometry, &args)? };
    Ok([re, im])
}

/// Turns the gradient that reaches every state from its output into that of the projected input, in place; returns the
/// sums that the coefficients' gradients are made of, and their memory.
fn scan_back(
    on: &Stream,
    prepared: &Prepared,
    States { v, h, .. }: &States,
    [g_re, g_im]: [&mut Tensor; 2],
) -> Result<(Bands, Array)> {
    let (plan, slices) = (&prepared.plan, Slices::of(prepared.state()));
    let [table, work, starts] = prepared.args()?;
    let mut carries = prepared.carries(on)?;
    if plan.cut.cuts(plan.rows) {
        let (geometry, sizes) = slices.launch(plan.items, STEP, 1)?;
        let args = [&[g_re.arg()?, g_im.arg()?, table, work, starts, carries.arg_mut()?][..], &sizes].concat();
        let kernel = slices.kernel(["scan_back_ends", "scan_back_ends_any"]);
        // SAFETY: as of the states.
        unsafe { on.launch(&SCAN, kernel, geometry, &args)? };
        prepared.join(on, "join_chunks_back", &mut carries)?;
    }
    let (count, stride) = (plan.items.clamp(1, BANDS), 3 * slices.state);
    let parts = on.scratch(count * stride * size_of::<f32>())?;
    let (geometry, sizes) = slices.launch(count, STEP_BACK, 3)?;
    let operands = [v[0].arg()?, v[1].arg()?, h[0].arg()?, h[1].arg()?, table, work, starts, carries.arg()?];
    let results = [g_re.arg_mut()?, g_im.arg_mut()?, parts.arg()];
    let args = [&operands[..], &results, &sizes, &[Arg::count(OP, count)?]].concat();
    // SAFETY: as above; all but the parts, which are [bands, 3, state], are [n, state].
    unsafe { on.launch(&SCAN, slices.kernel(["scan_back", "scan_back_any"]), geometry, &args)? };
    Ok((Bands { begin: parts.arg(), stride, count }, parts))
}

pub(super) fn forward(on: &Stream, x: &Tensor, weights: &Weights<'_>, segments: &Segments) -> Result<(Tensor, Saved)> {
    if fused::fits(x.cols(), weights.params_log.cols()) {
        return fused::forward(on, x, weights, segments, fused::Cutting::of(x.rows()));
    }
    let cut = scan_cut(x.rows(), weights.params_log.cols());
    forward_in_steps(on, x, weights, segments, cut)
}

/// The layer as products and the recurrence alone.
pub(super) fn forward_in_steps(
    on: &Stream,
    x: &Tensor,
    weights: &Weights<'_>,
    segments: &Segments,
    cut: Cut,
) -> Result<(Tensor, Saved)> {
    let v = project(x, weights)?;
    let prepared = Prepared::new(on, weights.params_log, segments, cut)?;
    let h = scan(on, &prepared, v.each_ref())?;
    let y = read_out(&h, weights)?;
    Ok((y, Saved::states(v, h, Some(prepared))))
}

/// The gradient of [`forward_in_steps`].
pub(super) fn backward_in_steps(
    on: &Stream,
    [dy, x]: [&Tensor; 2],
    states: &States,
    weights: &Weights<'_>,
    grads: &mut Grads<'_>,
) -> Result<Tensor> {
    let Some(prepared) = &states.prepared else {
        return Err(Error::Device("states on the host lie on a device".to_owned()));
    };
    let mut g = read_out_back(dy, &states.h, weights, grads)?;
    let (sums, _memory) = scan_back(on, prepared, states, g.each_mut())?;
    prepared.add_gradient(on, &sums, weights.params_log, grads.params_log, None)?;
    project_back(&g, x, weights, grads)
}
