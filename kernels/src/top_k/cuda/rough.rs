//! Candidates by rough scores, exact scores for them, and a proof for every row that they suffice. Rows without one are
//! searched anew by exact scores, so the result is always that of [`super::exact`].

use std::ops::Range;

use super::super::{Operands, Scored};
use super::{Excluded, OP, Ranges, at, exact, lists, merge, warps};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source =
    Source { name: "top_k_rough", text: concat!(include_str!("../keys.cuh"), include_str!("../rough.cu")) };

/// Rows or classes of a tile, as in the kernels.
const ITEMS: usize = 64;
/// Rows of a warp, likewise.
const ROWS_OF_WARP: usize = 32;
/// Tiles of one of the two stages, likewise.
const STAGE_TILES: usize = 3;
/// Keys of a row's list, likewise.
const CAPACITY: usize = 48;
/// Threads of a block that packs a tile.
const PACKERS: u32 = 256;
/// Candidates of a row: what the lanes of a warp can look at, and less than a list holds.
const CANDIDATES: usize = 32;
/// Of these the fewest that are more than wanted: without them the last candidate is too near to the last of the best.
const SPARE: usize = 8;
/// Warps of a block, if the device has the shared memory, and for rows of up to [`NARROW`] elements or for wider ones.
const WARPS: [(usize, &[usize]); 2] = [(NARROW, &[12, 8, 4]), (WIDE, &[8, 4])];
const NARROW: usize = 64;
const WIDE: usize = 128;
/// The fewest rows and classes for which rounding the weight is worth it.
const FEWEST_ROWS: usize = 256;
const FEWEST_CLASSES: usize = 1 << 17;
/// Ranges of the sample; together with those of the other classes no more lists than can be merged.
const SAMPLE_RANGES: usize = 8;
/// Of so many tiles one is in the sample.
const SAMPLE: usize = 64;
/// Rows that are searched for at a time, so that their lists take no more than 64 MiB.
const GROUP: usize = 8192;

/// How the classes are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Plan {
    /// Elements of a packed row: 64 or 128.
    pub(in super::super) width: usize,
    /// Warps of a block.
    pub(in super::super) warps: usize,
    /// Ranges of tiles whose best are the bars that all others begin with.
    pub(in super::super) sample: Ranges,
    /// The ranges behind.
    pub(in super::super) others: Ranges,
}

impl Plan {
    /// For many rows and classes, few of which are wanted; none if exact scores are quicker or the rows too wide.
    pub(in super::super) fn new([n, classes, d]: [usize; 3], k: usize, most_shared: usize) -> Option<Self> {
        if n < FEWEST_ROWS || classes < FEWEST_CLASSES || k + SPARE > CANDIDATES {
            return None;
        }
        let (width, warps) = WARPS.iter().find(|(width, _)| d <= *width)?;
        let warps = warps.iter().copied().find(|&warps| shared_bytes(*width, warps) <= most_shared)?;
        let tiles = classes.div_ceil(ITEMS);
        let sample = Ranges { width: tiles.div_ceil(SAMPLE * SAMPLE_RANGES), count: SAMPLE_RANGES };
        let left = tiles - sample.width * sample.count;
        Some(Self { width: *width, warps, sample, others: Ranges::of_at_most(32 - SAMPLE_RANGES, left) })
    }
}

/// What a block shares: the lists of its rows with two counts and a bar each, and two stages of tiles.
fn shared_bytes(width: usize, warps: usize) -> usize {
    warps * ROWS_OF_WARP * (CAPACITY * size_of::<u64>() + 12) + 2 * STAGE_TILES * tile_bytes(width)
}

/// A tile of half-precision numbers, and a bias for each of its items.
fn tile_bytes(width: usize) -> usize {
    ITEMS * (width * 2 + size_of::<f32>())
}

/// The best of every row, and how many rows were searched anew.
pub(in super::super) fn top_k(
    on: &Stream,
    operands: &Operands<'_>,
    k: usize,
    plan: Plan,
) -> Result<(Vec<Vec<Scored>>, usize)> {
    let n = operands.x.rows();
    let search = Search::new(on, operands, plan)?;
    let (mut found, mut unproven) = (Vec::with_capacity(n), Vec::new());
    for start in (0..n).step_by(GROUP) {
        let rows = start..(start + GROUP).min(n);
        let (keys, proven) = search.best(&rows, k)?;
        let keys = keys.read::<u64>(rows.len() * k)?;
        let proven = proven.read::<u32>(rows.len())?;
        found.extend(lists(&keys, k));
        unproven.extend(rows.zip(proven).filter(|(_, proven)| *proven == 0).map(|(row, _)| row as u32));
    }
    if !unproven.is_empty() {
        let again = exact::Search::new(on, operands, Some(&unproven))?.top_k(k)?;
        unproven.iter().zip(again).for_each(|(&row, best)| found[row as usize] = best);
    }
    Ok((found, unproven.len()))
}

/// Checked operands on a device, whose weight is rounded and packed.
struct Search<'a> {
    on: &'a Stream,
    operands: &'a Operands<'a>,
    plan: Plan,
    classes: Array,
    /// The largest norm of a class, of what rounding took from one, and of a bias: `[3]`.
    largest: Tensor,
    excluded: Excluded,
}

impl<'a> Search<'a> {
    fn new(on: &'a Stream, operands: &'a Operands<'a>, plan: Plan) -> Result<Self> {
        let tiles = operands.weight.rows().div_ceil(ITEMS);
        let mut largest = on.zeros(&[3])?;
        let classes = on.scratch(tiles * tile_bytes(plan.width))?;
        let bias = operands.bias.map_or(Ok(Arg::NULL), Tensor::arg)?;
        let results = [classes.arg(), Arg::NULL, largest.arg_mut()?];
        let extents = [operands.first_class as usize, operands.weight.rows(), operands.x.cols(), plan.width];
        // SAFETY: weight and bias have as many rows as the extents say; there is a tile for every block.
        unsafe { pack(on, tiles, [operands.weight.arg()?, bias], results, extents)? };
        let excluded = Excluded::new(on, operands.exclude.iter().copied())?;
        Ok(Self { on, operands, plan, classes, largest, excluded })
    }

    /// The keys of the best classes of some rows, `[rows, k]`, and which rows are proven.
    fn best(&self, rows: &Range<usize>, k: usize) -> Result<(Array, Array)> {
        let (n, d) = (rows.len(), self.operands.x.cols());
        let x = at(self.operands.x.arg()?, rows.start * d, size_of::<f32>());
        let norms = self.on.result(&[n, 2], Dtype::F32)?;
        let candidates = self.candidates(rows, x, &norms)?;
        let keys = self.on.scratch(n * k * size_of::<u64>())?;
        let proven = self.on.scratch(n * size_of::<u32>())?;
        let bias = self.operands.bias.map_or(Ok(Arg::NULL), Tensor::arg)?;
        let given = [x, self.operands.weight.arg()?, bias, candidates.arg(), norms.arg()?, self.largest.arg()?];
        let counts = [n, d, self.plan.width, CANDIDATES, k].map(|count| Arg::count(OP, count));
        let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
        let args = [&given[..], &[keys.arg(), proven.arg()], &counts].concat();
        // SAFETY: the candidates are [n, CANDIDATES] classes, the norms [n, 2], the keys [n, k], and k is no more than the
        // candidates.
        unsafe { self.on.launch(&KERNELS, "rescore", warps(n), &args)? };
        Ok((keys, proven))
    }

    /// The classes with the highest rough scores of every row: `[rows, CANDIDATES]`.
    fn candidates(&self, rows: &Range<usize>, x: Arg, norms: &Tensor) -> Result<Array> {
        let n = rows.len();
        let keys = |count: usize| self.on.scratch(count * size_of::<u64>());
        let block = self.plan.warps * ROWS_OF_WARP;
        let tiles = n.div_ceil(block) * block / ITEMS;
        let packed = self.on.scratch(tiles * tile_bytes(self.plan.width))?;
        let extents = [0, n, self.operands.x.cols(), self.plan.width];
        // SAFETY: x has n rows from there on, and norms a place for each; there is a tile for every block.
        unsafe { pack(self.on, tiles, [x, Arg::NULL], [packed.arg(), norms.arg()?, Arg::NULL], extents)? };

        let Plan { sample, others, .. } = self.plan;
        let lists = keys((sample.count + others.count) * n * CANDIDATES)?;
        let (best, seeds) = (keys(n * CANDIDATES)?, keys(n)?);
        self.scan(rows, &packed, Arg::NULL, 0, sample, lists.arg())?;
        // SAFETY: the lists are [sample ranges, n, CANDIDATES], the best [n, CANDIDATES].
        unsafe { merge(self.on, &lists, [&best, &seeds], n, [sample.count, CANDIDATES, CANDIDATES, 0])? };
        let behind = at(lists.arg(), sample.count * n * CANDIDATES, size_of::<u64>());
        self.scan(rows, &packed, seeds.arg(), sample.width * sample.count, others, behind)?;
        let ranges = sample.count + others.count;
        // SAFETY: as above, with the lists of all ranges.
        unsafe { merge(self.on, &lists, [&best, &seeds], n, [ranges, CANDIDATES, CANDIDATES, 0])? };
        Ok(best)
    }

    /// The best of every range of tiles from `first` on.
    fn scan(
        &self,
        rows: &Range<usize>,
        packed: &Array,
        seeds: Arg,
        first: usize,
        ranges: Ranges,
        to: Arg,
    ) -> Result<()> {
        let Plan { width, warps, .. } = self.plan;
        let tiles = self.operands.weight.rows().div_ceil(ITEMS);
        let end = (first + ranges.width * ranges.count).min(tiles);
        let blocks = Geometry::blocks(rows.len().div_ceil(warps * ROWS_OF_WARP), (warps * 32) as u32);
        let grid = [blocks.grid[0], Geometry::blocks(ranges.count, 1).grid[0], 1];
        let geometry = Geometry { grid, ..blocks }.with_shared_of_this_card(shared_bytes(width, warps));
        let offsets = at(self.excluded.offsets.arg(), rows.start, size_of::<u32>());
        let own = [packed.arg(), self.classes.arg(), offsets, self.excluded.ids.arg(), seeds, to];
        let counts = [rows.len(), first, end, ranges.width, CANDIDATES].map(|count| Arg::count(OP, count));
        let args = [own.to_vec(), counts.into_iter().collect::<Result<_>>()?].concat();
        let kernel = if width == NARROW { "scan_64" } else { "scan_128" };
        // SAFETY: rows are packed for whole blocks, and the tiles end where those of the classes do; the lists are [ranges,
        // rows, CANDIDATES].
        unsafe { self.on.launch(&KERNELS, kernel, geometry, &args) }
    }
}

/// Packs rows of a matrix, with a bias if there is one, into tiles; of the results the norms or the largest may be absent.
///
/// # Safety
/// With extents `[first, n, d, width]` the matrix is `[n, d]`, the bias `[n]` and the norms `[n, 2]`; there is room for so many
/// tiles.
unsafe fn pack(on: &Stream, tiles: usize, given: [Arg; 2], results: [Arg; 3], extents: [usize; 4]) -> Result<()> {
    let extents = extents.map(|extent| Arg::count(OP, extent)).into_iter().collect::<Result<Vec<_>>>()?;
    let args = [&given[..], &results, &extents].concat();
    // SAFETY: the caller's promise.
    unsafe { on.launch(&KERNELS, "pack", Geometry::blocks(tiles, PACKERS), &args) }
}
