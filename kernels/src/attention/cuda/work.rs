//! Which tiles there are, for the kernels to find theirs.

use std::cmp::Reverse;

use super::super::layout::Layout;
use crate::Result;
use crate::cuda::{Arg, Array, Geometry, Stream};

/// Threads of a block, as in the kernels.
const THREADS: u32 = 128;

/// A list of tiles in the memory of a device: `Sequence` of `tiles.cuh` for each.
pub(super) struct Work {
    list: Array,
    tiles: usize,
}

impl Work {
    /// The tiles of so many query rows. Sequences with much to do come first, so that the last blocks are short ones.
    pub(super) fn by_queries(on: &Stream, layout: &Layout, rows: usize) -> Result<Self> {
        let mut order: Vec<usize> = (0..layout.sequences()).collect();
        let cost = |&i: &usize| layout.queries.range(i).len() * (layout.prefix + layout.keys.range(i).len());
        order.sort_by_key(|i| Reverse(cost(i)));
        let mut list: Vec<u32> = Vec::new();
        let mut first = 0;
        for i in order {
            let (queries, keys) = (layout.queries.range(i), layout.keys.range(i));
            let tiles = queries.len().div_ceil(rows);
            let entry = [first, tiles, queries.start, queries.len(), keys.start, keys.len()];
            (0..tiles).for_each(|_| list.extend(entry.map(|n| n as u32)));
            first += tiles;
        }
        Ok(Self { list: on.upload(&list)?, tiles: first })
    }

    pub(super) fn arg(&self) -> Arg {
        self.list.arg()
    }

    /// Blocks for all tiles of so many heads.
    pub(super) fn blocks(&self, heads: usize) -> Geometry {
        Geometry::blocks(self.tiles * heads, THREADS)
    }
}
