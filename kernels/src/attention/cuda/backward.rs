//! Backward passes.

use std::ops::Range;

use super::super::{OP, Operands, layout::Layout};
use super::work::{THREADS, Work};
use super::{WIDEST, Width, of_all_widths, operands, settings};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

/// The most parts whose gradients of the prefix are kept apart: part of the order of summation, so it is a constant.
const PARTS: usize = 16;

/// What the forward pass gave, and the gradient of it.
pub(in super::super) struct Results<'a> {
    pub(in super::super) d_out: &'a Tensor,    // [n, heads * head_dim]
    pub(in super::super) out: &'a Tensor,      // [n, heads * head_dim]
    pub(in super::super) log_sums: &'a Tensor, // [n, heads]
}

/// Returns `dq`, `dk` and `dv`, of the dtype of the operands; adds to the gradient of the keys and the values of the
/// prefix.
pub(in super::super) fn backward(
    on: &Stream,
    of: &Operands<'_>,
    layout: &Layout,
    results: &Results<'_>,
    d_prefix: Option<[&mut Tensor; 2]>,
) -> Result<[Tensor; 3]> {
    let dtype = of.q.dtype();
    let [mut dq, mut dk, mut dv] =
        [on.result(of.q.shape(), dtype)?, on.result(of.k.shape(), dtype)?, on.result(of.v.shape(), dtype)?];
    if of.q.is_empty() {
        [&mut dk, &mut dv].into_iter().try_for_each(|gradient| on.fill_zero(gradient))?;
        return Ok([dq, dk, dv]);
    }
    let pass = Pass::new(on, of, layout, results)?;
    pass.queries(dq.arg_mut()?)?;
    let work = Work::by_keys(on, layout, pass.family.keys(pass.width).rows)?;
    let to = [dk.arg_mut()?, dv.arg_mut()?];
    pass.keys(&work, layout.causal, [of.k.arg()?, of.v.arg()?], &pass.family.places(to))?;
    if let Some(d_prefix) = d_prefix {
        pass.prefix(d_prefix)?;
    }
    Ok([dq, dk, dv])
}

/// Rows of the tiles whose gradient a block computes, and the bytes of shared memory that it asks for.
struct Tiles {
    rows: usize,
    bytes: usize,
}

/// The kernels of a dtype; the numbers are theirs.
enum Family {
    F32,
    Bf16,
}

/// The text of kernels behind that of the files that they name.
macro_rules! source {
    ($name:literal, $($file:literal),+) => {
        Source { name: $name, text: concat!($(include_str!($file)),+) }
    };
}

const KEYS_F32: Source = source!(
    "attention_backward_keys_f32",
    "tiles.cuh",
    "tiles_f32.cuh",
    "spans.cuh",
    "gradient_f32.cuh",
    "backward_keys_f32.cu"
);
const QUERIES_F32: Source = source!(
    "attention_backward_queries_f32",
    "tiles.cuh",
    "tiles_f32.cuh",
    "gradient_f32.cuh",
    "backward_queries_f32.cu"
);
const KEYS_BF16: Source = source!(
    "attention_backward_keys_bf16",
    "tiles.cuh",
    "tiles_bf16.cuh",
    "spans.cuh",
    "gradient_bf16.cuh",
    "backward_keys_bf16.cu"
);
const QUERIES_BF16: Source = source!(
    "attention_backward_queries_bf16",
    "tiles.cuh",
    "tiles_bf16.cuh",
    "gradient_bf16.cuh",
    "backward_queries_bf16.cu"
);

impl Family {
    /// Tiles for sums over queries: two of either side, and what softmax needs of them.
    fn keys(&self, Width(width): Width) -> Tiles {
        match self {
            Self::F32 => tiles_f32(width),
            Self::Bf16 => {
                let (rows, others) = if width > 128 {
                    (64, 32)
                } else if width > 64 {
                    (64, 64)
                } else {
                    (128, 32)
                };
                let bytes = 2 * (rows + others) * width * size_of::<u16>() + others * size_of::<[f32; 2]>();
                Tiles { rows, bytes }
            }
        }
    }

    /// Tiles for sums over keys: for bf16 in two stages.
    fn queries(&self, Width(width): Width) -> Tiles {
        match self {
            Self::F32 => tiles_f32(width),
            Self::Bf16 => {
                let (rows, others) = if width > 128 {
                    (64, 16)
                } else if width > 64 {
                    (128, 32)
                } else {
                    (128, 64)
                };
                Tiles { rows, bytes: (2 * rows + 4 * others) * width * size_of::<u16>() }
            }
        }
    }

    /// The kernel for the gradients of keys and values, and that for the values alone where heads are too wide for both.
    fn key_kernels(&self, width: Width) -> (&'static Source, [Option<&'static str>; 2]) {
        match self {
            Self::F32 => (&KEYS_F32, [Some(width.kernel(&of_all_widths!("backward_keys_f32"))), None]),
            Self::Bf16 => {
                let keys = width.kernel(&of_all_widths!("backward_keys_bf16"));
                (&KEYS_BF16, [Some(keys), (width.0 == WIDEST).then_some("backward_values_bf16_256")])
            }
        }
    }

    /// The kernel for the gradient of queries.
    fn query_kernel(&self, width: Width) -> (&'static Source, &'static str) {
        match self {
            Self::F32 => (&QUERIES_F32, width.kernel(&of_all_widths!("backward_queries_f32"))),
            Self::Bf16 => (&QUERIES_BF16, width.kernel(&of_all_widths!("backward_queries_bf16"))),
        }
    }

    /// Where those kernels write gradients of the operands' dtype.
    fn places(&self, [dk, dv]: [Arg; 2]) -> Vec<Arg> {
        match self {
            Self::F32 => vec![dk, dv],
            Self::Bf16 => vec![dk, dv, Arg::NULL, Arg::NULL],
        }
    }

    /// Where they write those of parts, in f32.
    fn places_of_parts(&self, [dk, dv]: [Arg; 2]) -> Vec<Arg> {
        match self {
            Self::F32 => vec![dk, dv],
            Self::Bf16 => vec![Arg::NULL, Arg::NULL, dk, dv],
        }
    }
}

/// Two tiles of either side, and one of weights.
fn tiles_f32(width: usize) -> Tiles {
    let rows = if width > 128 {
        16
    } else if width > 64 {
        32
    } else {
        64
    };
    let others = 32;
    Tiles { rows, bytes: (2 * (rows + others) * width + rows * others) * size_of::<f32>() }
}

/// What all kernels of a pass take.
struct Pass<'a> {
    on: &'a Stream,
    of: &'a Operands<'a>,
    layout: &'a Layout,
    family: Family,
    width: Width,
    /// The gradient of the result, and what softmax needs of its rows: the logarithms of the denominators and the sums
    /// over the features of `d_out * out`. For bf16 the number of rows follows, as part of the settings.
    passed: Vec<Arg>,
    rows: Vec<Arg>,
    /// Those sums, with the logarithms for bf16.
    _statistics: Array,
    /// Where the queries of each sequence begin, and how many they are.
    sequences: Array,
}

impl<'a> Pass<'a> {
    fn new(on: &'a Stream, of: &'a Operands<'a>, layout: &'a Layout, results: &Results<'_>) -> Result<Self> {
        let width = Width::of(layout)?;
        settings(layout)?;
        let ranges: Vec<u32> = layout.queries.ranges().flat_map(|r| [r.start as u32, r.len() as u32]).collect();
        let sequences = on.upload(&ranges)?;
        let [d_out, out, log_sums] = [results.d_out.arg()?, results.out.arg()?, results.log_sums.arg()?];
        let (n, rows) = (results.log_sums.len(), Arg::count(OP, layout.queries.rows())?);
        let features = Arg::count(OP, layout.shape.head_dim)?;
        let threads = THREADS as usize;
        if of.q.dtype() == Dtype::F32 {
            let pulls = on.scratch(n * size_of::<f32>())?;
            let args = [d_out, out, pulls.arg(), Arg::U64(n as u64), features];
            // SAFETY: d_out and out are [n, head_dim] for n rows and heads, the sums [n].
            unsafe { on.launch(&KEYS_F32, "pulls", Geometry::blocks(n.div_ceil(threads / 32), THREADS), &args)? };
            let passed = vec![d_out, log_sums, pulls.arg()];
            return Ok(Self {
                on,
                of,
                layout,
                family: Family::F32,
                width,
                passed,
                rows: vec![],
                _statistics: pulls,
                sequences,
            });
        }
        let statistics = on.scratch(n * size_of::<[f32; 2]>())?;
        let args = [d_out, out, log_sums, statistics.arg(), rows, Arg::count(OP, layout.shape.heads)?, features];
        // SAFETY: as above; the logarithms are [rows, heads], the statistics pairs of floats, [heads, rows].
        unsafe {
            on.launch(&KEYS_BF16, "statistics_bf16", Geometry::blocks(n.div_ceil(threads / 16), THREADS), &args)?
        };
        let passed = vec![d_out, statistics.arg()];
        Ok(Self {
            on,
            of,
            layout,
            family: Family::Bf16,
            width,
            passed,
            rows: vec![rows],
            _statistics: statistics,
            sequences,
        })
    }

    /// The gradient of the queries.
    fn queries(&self, dq: Arg) -> Result<()> {
        let tiles = self.family.queries(self.width);
        let work = Work::by_queries(self.on, self.layout, tiles.rows)?;
        let scale = [Arg::F32(self.layout.shape.scale())];
        let (of, settings) = (operands(self.of)?, settings(self.layout)?);
        let args = [&[work.arg()][..], &of, &self.passed, &[dq], &self.rows, &settings, &scale].concat();
        let blocks = work.blocks(self.layout.shape.heads).with_shared(tiles.bytes);
        let (source, kernel) = self.family.query_kernel(self.width);
        // SAFETY: the operands were checked against the layout, of whose sequences the list holds the tiles; d_out and
        // dq are shaped as the queries, what is passed is there for all rows and heads.
        unsafe { self.on.launch(source, kernel, blocks, &args) }
    }

    /// The gradients of keys and values in tiles of a list.
    fn keys(&self, work: &Work, causal: bool, [k, v]: [Arg; 2], places: &[Arg]) -> Result<()> {
        let [heads, kv_heads, features, ..] = settings(self.layout)?;
        let settings = [heads, kv_heads, features, Arg::U32(u32::from(causal)), Arg::F32(self.layout.shape.scale())];
        let operands = [work.arg(), self.sequences.arg(), self.of.q.arg()?, k, v];
        let args = [&operands[..], &self.passed, places, &self.rows, &settings].concat();
        let blocks = work.blocks(self.layout.shape.kv_heads).with_shared(self.family.keys(self.width).bytes);
        let (source, kernels) = self.family.key_kernels(self.width);
        for kernel in kernels.into_iter().flatten() {
            // SAFETY: as above; keys, values and their gradients have the rows that the list speaks of.
            unsafe { self.on.launch(source, kernel, blocks, &args)? };
        }
        Ok(())
    }

    /// Adds the gradients of the prefix: those of each part of the sequences first, then part after part.
    fn prefix(&self, d_prefix: [&mut Tensor; 2]) -> Result<()> {
        let Some(prefix) = self.of.prefix else { return Ok(()) };
        let parts = parts(self.layout.sequences());
        let n = prefix.k.len();
        Arg::count(OP, parts.len() * self.layout.prefix)?;
        let bytes = parts.len() * n * size_of::<f32>();
        let sums = [self.on.scratch(bytes)?, self.on.scratch(bytes)?];
        let work = Work::by_prefix(self.on, self.layout, self.family.keys(self.width).rows, &parts)?;
        let places = self.family.places_of_parts(sums.each_ref().map(Array::arg));
        self.keys(&work, false, [prefix.k.arg()?, prefix.v.arg()?], &places)?;
        for (sums, to) in sums.iter().zip(d_prefix) {
            let args = [sums.arg(), to.arg_mut()?, Arg::count(OP, parts.len())?, Arg::U64(n as u64)];
            // SAFETY: the sums are [parts, n], the gradient has n elements.
            unsafe { self.on.launch(&KEYS_F32, "add_parts", Geometry::elements(n), &args)? };
        }
        Ok(())
    }
}

/// Cuts the sequences into parts, of which there are few: sums are kept for each.
fn parts(sequences: usize) -> Vec<Range<usize>> {
    let length = sequences.div_ceil(PARTS).max(1);
    (0..sequences).step_by(length).map(|first| first..(first + length).min(sequences)).collect()
}
