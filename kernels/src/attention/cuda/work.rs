//! Which tiles there are, for the kernels to find theirs.

use std::cmp::Reverse;
use std::ops::Range;

use super::super::layout::Layout;
use crate::Result;
use crate::cuda::{Arg, Array, Geometry, Stream};

/// Threads of a block, as in the kernels.
pub(super) const THREADS: u32 = 128;

/// A list of tiles in the memory of a device.
pub(super) struct Work {
    list: Array,
    tiles: usize,
}

impl Work {
    /// The tiles of so many query rows: `Sequence` of `tiles.cuh` for each.
    pub(super) fn by_queries(on: &Stream, layout: &Layout, rows: usize) -> Result<Self> {
        let mut list = List::default();
        for i in longest_first(layout) {
            let (queries, keys) = (layout.queries.range(i), layout.keys.range(i));
            list.push(queries.len().div_ceil(rows), [queries.start, queries.len(), keys.start, keys.len()]);
        }
        list.upload(on)
    }

    /// The tiles of so many keys: `Span` of `tiles.cuh` for each.
    pub(super) fn by_keys(on: &Stream, layout: &Layout, rows: usize) -> Result<Self> {
        let mut list = List::default();
        for i in longest_first(layout) {
            let keys = layout.keys.range(i);
            list.push(keys.len().div_ceil(rows), [i, i + 1, keys.start, keys.len(), keys.start]);
        }
        list.upload(on)
    }

    /// The tiles of so many keys of the prefix, once for each part of the sequences; their gradients come part after
    /// part.
    pub(super) fn by_prefix(on: &Stream, layout: &Layout, rows: usize, parts: &[Range<usize>]) -> Result<Self> {
        let mut list = List::default();
        for (i, part) in parts.iter().enumerate() {
            let tiles = layout.prefix.div_ceil(rows);
            list.push(tiles, [part.start, part.end, 0, layout.prefix, i * layout.prefix]);
        }
        list.upload(on)
    }

    pub(super) fn arg(&self) -> Arg {
        self.list.arg()
    }

    /// Blocks for all tiles of so many heads.
    pub(super) fn blocks(&self, heads: usize) -> Geometry {
        Geometry::blocks(self.tiles * heads, THREADS)
    }
}

/// The sequences, those with much to do before the others: so the last blocks are short ones.
fn longest_first(layout: &Layout) -> Vec<usize> {
    let mut order: Vec<usize> = (0..layout.sequences()).collect();
    let cost = |&i: &usize| layout.queries.range(i).len() * (layout.prefix + layout.keys.range(i).len());
    order.sort_by_key(|i| Reverse(cost(i)));
    order
}

/// Such a list in the making. An entry begins with the number of the first tile of its kind and how many of it there
/// are.
#[derive(Default)]
struct List {
    entries: Vec<u32>,
    tiles: usize,
}

impl List {
    /// Adds some tiles that share an entry. Rows are counted with 32 bits, as `settings` checks.
    fn push<const N: usize>(&mut self, tiles: usize, entry: [usize; N]) {
        for _ in 0..tiles {
            self.entries.extend([self.tiles, tiles].into_iter().chain(entry).map(|n| n as u32));
        }
        self.tiles += tiles;
    }

    fn upload(self, on: &Stream) -> Result<Work> {
        Ok(Work { list: on.upload(&self.entries)?, tiles: self.tiles })
    }
}
