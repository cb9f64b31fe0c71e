//! Exact scores: the same bits as the host's, in any company.

use std::ops::Range;

use super::super::{Operands, Scored};
use super::{Excluded, OP, Ranges, at, lists, merge, warps};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Result, Tensor};

pub(super) const KERNELS: Source = Source {
    name: OP,
    text: concat!(include_str!("../keys.cuh"), include_str!("../tiles.cuh"), include_str!("../kernel.cu")),
};
const RANKS: Source = Source {
    name: "top_k_ranks",
    text: concat!(include_str!("../keys.cuh"), include_str!("../tiles.cuh"), include_str!("../ranks.cu")),
};

/// Rows of a block, as in the kernels.
const ROWS: usize = 64;
/// Threads of a block, likewise.
const THREADS: u32 = 128;
/// The most that one pass over the classes finds, likewise: for more there are more passes.
const MOST_WANTED: usize = 64;
/// Keys of a row's list, likewise.
const CAPACITY: usize = 96;
/// What a block shares: the lists, and of every row two counts and a bar; one flag.
const SHARED_BYTES: usize = ROWS * (CAPACITY * size_of::<u64>() + 12) + 8;
/// The narrowest range of classes.
const NARROWEST: usize = 2048;
/// Rows that are searched for at a time, so that their lists take no more than 128 MiB.
const GROUP: usize = 8192;

/// Checked operands on a device.
pub(super) struct Search<'a> {
    on: &'a Stream,
    operands: &'a Operands<'a>,
    /// Which rows of `x` are meant, if not all.
    chosen: Option<Array>,
    n: usize,
    excluded: Excluded,
    ranges: Ranges,
}

impl<'a> Search<'a> {
    /// For all rows, or for some in the order in which they are named.
    pub(super) fn new(on: &'a Stream, operands: &'a Operands<'a>, chosen: Option<&[u32]>) -> Result<Self> {
        let excluded = match chosen {
            None => Excluded::new(on, operands.exclude.iter().copied())?,
            Some(rows) => Excluded::new(on, rows.iter().map(|&row| operands.exclude[row as usize]))?,
        };
        Ok(Self {
            on,
            operands,
            n: chosen.map_or(operands.x.rows(), <[u32]>::len),
            chosen: chosen.map(|rows| on.upload(rows)).transpose()?,
            excluded,
            ranges: Ranges::new(operands.choosable(), NARROWEST),
        })
    }

    /// The `k` best of every row, of at least as many classes.
    pub(super) fn top_k(&self, k: usize) -> Result<Vec<Vec<Scored>>> {
        let mut found = Vec::with_capacity(self.n);
        for start in (0..self.n).step_by(GROUP) {
            let rows = start..(start + GROUP).min(self.n);
            let keys = self.best(&rows, k)?.read::<u64>(rows.len() * k)?;
            found.extend(lists(&keys, k));
        }
        Ok(found)
    }

    /// The keys of the best classes of some rows: `[rows, k]`.
    fn best(&self, rows: &Range<usize>, k: usize) -> Result<Array> {
        let keys = |count: usize| self.on.scratch(count * size_of::<u64>());
        let (best, bounds) = (keys(rows.len() * k)?, keys(rows.len())?);
        let lists = keys(self.ranges.count * rows.len() * k.min(MOST_WANTED))?;
        for first in (0..k).step_by(MOST_WANTED) {
            let wanted = (k - first).min(MOST_WANTED);
            let below = if first == 0 { Arg::NULL } else { bounds.arg() };
            self.find(rows, below, &lists, wanted)?;
            // SAFETY: the lists are [ranges, rows, wanted], the best [rows, k], and there is a bound for every row.
            unsafe {
                merge(self.on, &lists, [&best, &bounds], rows.len(), [self.ranges.count, wanted, k, first])?;
            }
        }
        Ok(best)
    }

    /// The best of every range of classes, of those that are below a bound if there is one.
    fn find(&self, rows: &Range<usize>, bounds: Arg, lists: &Array, wanted: usize) -> Result<()> {
        let chosen = self.chosen.as_ref().map_or(Arg::NULL, |chosen| at(chosen.arg(), rows.start, size_of::<u32>()));
        let own = [chosen, self.offsets(rows), self.excluded.ids.arg(), bounds, lists.arg()];
        let wanted = Arg::count(OP, wanted)?;
        let args = [&self.matrices(rows)?[..], &own, &self.extents(rows.len())?, &[self.width()?, wanted]].concat();
        // SAFETY: what is chosen are rows of x, of which there are as many offsets and one more; the lists are [ranges, rows,
        // wanted].
        unsafe { self.on.launch(&KERNELS, "best", self.tiles(rows.len()).with_shared(SHARED_BYTES), &args) }
    }

    /// The ranks of the targets of all rows.
    pub(super) fn ranks(&self, targets: &[u32]) -> Result<Vec<u32>> {
        let rows = 0..self.n;
        let targets = self.on.upload(targets)?;
        let [goals, ranks] = [self.on.scratch(4 * self.n)?, self.on.scratch(4 * self.n)?];
        let [matrices, extents] = [self.matrices(&rows)?.to_vec(), self.extents(self.n)?.to_vec()];
        let results = [targets.arg(), goals.arg(), ranks.arg()];
        let own = [self.offsets(&rows), self.excluded.ids.arg()];
        let args = [&matrices[..], &own, &results, &extents].concat();
        // SAFETY: the targets are classes, and there are as many goals, ranks and offsets, and one more of those, as rows.
        unsafe { self.on.launch(&RANKS, "begin_ranks", warps(self.n), &args)? };
        let args = [&matrices[..], &results, &extents, &[self.width()?]].concat();
        // SAFETY: as above.
        unsafe { self.on.launch(&RANKS, "add_better", self.tiles(self.n), &args)? };
        ranks.read(self.n)
    }

    /// A block for some rows and a range of classes; neighbours share the range, so that it comes from the cache.
    fn tiles(&self, n: usize) -> Geometry {
        let rows = Geometry::blocks(n.div_ceil(ROWS), THREADS);
        Geometry { grid: [rows.grid[0], Geometry::blocks(self.ranges.count, 1).grid[0], 1], ..rows }
    }

    /// `x`, where chosen rows or the first of the group begin, the weight and the bias.
    fn matrices(&self, rows: &Range<usize>) -> Result<[Arg; 3]> {
        let Operands { x, weight, bias, .. } = self.operands;
        let first = if self.chosen.is_some() { 0 } else { rows.start };
        let bias = bias.map_or(Ok(Arg::NULL), Tensor::arg)?;
        Ok([at(x.arg()?, first * x.cols(), size_of::<f32>()), weight.arg()?, bias])
    }

    /// The numbers of rows and of columns, the first class and the number of classes.
    fn extents(&self, n: usize) -> Result<[Arg; 4]> {
        let Operands { x, weight, first_class, .. } = self.operands;
        let first = Arg::U32(*first_class);
        Ok([Arg::count(OP, n)?, Arg::count(OP, x.cols())?, first, Arg::count(OP, weight.rows())?])
    }

    fn offsets(&self, rows: &Range<usize>) -> Arg {
        at(self.excluded.offsets.arg(), rows.start, size_of::<u32>())
    }

    fn width(&self) -> Result<Arg> {
        Arg::count(OP, self.ranges.width)
    }
}
