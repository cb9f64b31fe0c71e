//! Backward passes.

use std::ops::Range;

use super::super::{OP, Operands, layout::Layout};
use super::work::{THREADS, Work};
use super::{Width, operands, settings};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const F32: Source = Source {
    name: "attention-backward-f32",
    text: concat!(include_str!("tiles.cuh"), include_str!("tiles_f32.cuh"), include_str!("backward_f32.cu")),
};

/// The most parts whose gradients of the prefix are kept apart: part of the order of summation, so it is a constant.
const PARTS: usize = 16;

/// What the forward pass gave, and the gradient of it.
pub(in super::super) struct Results<'a> {
    pub(in super::super) d_out: &'a Tensor,    // [n, heads * head_dim]
    pub(in super::super) out: &'a Tensor,      // [n, heads * head_dim]
    pub(in super::super) log_sums: &'a Tensor, // [n, heads]
}

/// Returns `dq`, `dk` and `dv`; adds to the gradient of the keys and the values of the prefix.
pub(in super::super) fn backward(
    on: &Stream,
    of: &Operands<'_>,
    layout: &Layout,
    results: &Results<'_>,
    d_prefix: Option<[&mut Tensor; 2]>,
) -> Result<[Tensor; 3]> {
    if of.q.is_empty() {
        return Ok([of.q.zeros_like()?, of.k.zeros_like()?, of.v.zeros_like()?]);
    }
    let pass = Pass::new(on, of, layout, results)?;
    let dq = pass.queries()?;
    let [mut dk, mut dv] = [on.result(of.k.shape(), Dtype::F32)?, on.result(of.v.shape(), Dtype::F32)?];
    let work = Work::by_keys(on, layout, pass.tiles.rows)?;
    pass.keys(&work, layout.causal, [of.k.arg()?, of.v.arg()?], [dk.arg_mut()?, dv.arg_mut()?])?;
    if let Some([to_dk, to_dv]) = d_prefix {
        pass.prefix([to_dk, to_dv])?;
    }
    Ok([dq, dk, dv])
}

/// Rows of the tiles whose gradient a block computes, and the bytes of shared memory that it asks for: see the kernels.
struct Tiles {
    rows: usize,
    bytes: usize,
}

impl Tiles {
    /// Two tiles of either side, and one of weights.
    fn new(Width(width): Width) -> Self {
        let (rows, others) = (
            if width > 128 {
                16
            } else if width > 64 {
                32
            } else {
                64
            },
            32,
        );
        Self { rows, bytes: (2 * (rows + others) * width + rows * others) * size_of::<f32>() }
    }
}

/// What all kernels of a pass take.
struct Pass<'a> {
    on: &'a Stream,
    of: &'a Operands<'a>,
    layout: &'a Layout,
    width: Width,
    tiles: Tiles,
    d_out: Arg,
    log_sums: Arg,
    /// The sum over the features of `d_out * out`: `[n, heads]`.
    pulls: Array,
    /// Where the queries of each sequence begin, and how many they are.
    sequences: Array,
}

impl<'a> Pass<'a> {
    fn new(on: &'a Stream, of: &'a Operands<'a>, layout: &'a Layout, results: &Results<'_>) -> Result<Self> {
        let width = Width::of(layout)?;
        let d_out = results.d_out.arg()?;
        let n = results.log_sums.len();
        let pulls = on.scratch(n * size_of::<f32>())?;
        let args = [d_out, results.out.arg()?, pulls.arg(), Arg::U64(n as u64), Arg::count(OP, layout.shape.head_dim)?];
        let blocks = Geometry::blocks(n.div_ceil(THREADS as usize / 32), THREADS);
        // SAFETY: d_out and out are [n, head_dim] for n rows and heads, the sums [n].
        unsafe { on.launch(&F32, "pulls", blocks, &args)? };
        let ranges: Vec<u32> = layout.queries.ranges().flat_map(|r| [r.start as u32, r.len() as u32]).collect();
        let (sequences, log_sums) = (on.upload(&ranges)?, results.log_sums.arg()?);
        Ok(Self { on, of, layout, width, tiles: Tiles::new(width), d_out, log_sums, pulls, sequences })
    }

    /// The gradient of the queries.
    fn queries(&self) -> Result<Tensor> {
        let mut dq = self.on.result(self.of.q.shape(), Dtype::F32)?;
        let work = Work::by_queries(self.on, self.layout, self.tiles.rows)?;
        let passed = [self.d_out, self.log_sums, self.pulls.arg(), dq.arg_mut()?];
        let scale = [Arg::F32(self.layout.shape.scale())];
        let args = [&[work.arg()][..], &operands(self.of)?, &passed, &settings(self.layout)?, &scale].concat();
        let blocks = work.blocks(self.layout.shape.heads).with_shared(self.tiles.bytes);
        // SAFETY: the operands were checked against the layout, of whose sequences the list holds the tiles; d_out and dq are
        // shaped as the queries, log_sums and pulls are [n, heads].
        unsafe { self.on.launch(&F32, &self.width.kernel("backward_queries_f32"), blocks, &args)? };
        Ok(dq)
    }

    /// The gradients of keys and values in tiles of a list.
    fn keys(&self, work: &Work, causal: bool, [k, v]: [Arg; 2], [dk, dv]: [Arg; 2]) -> Result<()> {
        let passed = [self.d_out, self.log_sums, self.pulls.arg(), dk, dv];
        let [heads, kv_heads, features, ..] = settings(self.layout)?;
        let settings = [heads, kv_heads, features, Arg::U32(u32::from(causal)), Arg::F32(self.layout.shape.scale())];
        let args = [&[work.arg(), self.sequences.arg(), self.of.q.arg()?, k, v][..], &passed, &settings].concat();
        let blocks = work.blocks(self.layout.shape.kv_heads).with_shared(self.tiles.bytes);
        // SAFETY: as above; keys, values and their gradients have the rows that the list speaks of.
        unsafe { self.on.launch(&F32, &self.width.kernel("backward_keys_f32"), blocks, &args) }
    }

    /// Adds the gradients of the prefix: those of each part of the sequences first, then part after part.
    fn prefix(&self, d_prefix: [&mut Tensor; 2]) -> Result<()> {
        let Some(prefix) = self.of.prefix else { return Ok(()) };
        let parts = parts(self.layout.sequences());
        let n = prefix.k.len();
        Arg::count(OP, parts.len() * self.layout.prefix)?;
        let bytes = parts.len() * n * size_of::<f32>();
        let sums = [self.on.scratch(bytes)?, self.on.scratch(bytes)?];
        let work = Work::by_prefix(self.on, self.layout, self.tiles.rows, &parts)?;
        self.keys(&work, false, [prefix.k.arg()?, prefix.v.arg()?], sums.each_ref().map(Array::arg))?;
        for (sums, to) in sums.iter().zip(d_prefix) {
            let args = [sums.arg(), to.arg_mut()?, Arg::count(OP, parts.len())?, Arg::U64(n as u64)];
            // SAFETY: the sums are [parts, n], the gradient has n elements.
            unsafe { self.on.launch(&F32, "add_parts", Geometry::elements(n), &args)? };
        }
        Ok(())
    }
}

/// Cuts the sequences into parts, of which there are few: sums are kept for each.
fn parts(sequences: usize) -> Vec<Range<usize>> {
    let length = sequences.div_ceil(PARTS).max(1);
    (0..sequences).step_by(length).map(|first| first..(first + length).min(sequences)).collect()
}
