//! Where everything lies, and how rows are put together to blocks.

use std::ops::Range;

use super::Shape;
use crate::Segments;

/// Query rows of one block. Smaller blocks waste less of a causal triangle, larger ones make better products.
const BLOCK: usize = 64;

/// All that a pass depends on but the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    pub(super) queries: Segments,
    pub(super) keys: Segments,
    /// Whether a row sees no key of a later row.
    pub(super) causal: bool,
    /// Rows of the prefix.
    pub(super) prefix: usize,
}

/// Neighbouring query rows of one sequence and the keys that they see.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Rows of the packed queries.
    pub(super) rows: Range<usize>,
    /// Rows of the packed keys that the last row sees.
    pub(super) keys: Range<usize>,
    /// Rows of the prefix, which come before those.
    pub(super) prefix: usize,
    causal: bool,
}

impl Layout {
    /// The number of sequences.
    pub(super) fn sequences(&self) -> usize {
        self.queries.len()
    }

    /// The blocks of one sequence; none where there is no key to be seen.
    ///
    /// Causal rows are cut where they would be cut were the prefix written before them, so that the sums over a block
    /// are the same with a shared prefix and with a repeated one.
    pub(super) fn blocks(&self, sequence: usize) -> impl Iterator<Item = Block> + use<> {
        let (queries, keys) = (self.queries.range(sequence), self.keys.range(sequence));
        let (causal, prefix) = (self.causal, self.prefix);
        let first = if causal { prefix } else { 0 };
        let end = first + queries.len();
        let blocks = (first / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
            let from = (block * BLOCK).max(first) - first;
            let to = ((block + 1) * BLOCK).min(end) - first;
            let seen = if causal { to } else { keys.len() };
            let rows = queries.start + from..queries.start + to;
            Block { rows, keys: keys.start..keys.start + seen, prefix, causal }
        });
        blocks.filter(|block| !block.rows.is_empty() && block.seen() > 0)
    }
}

impl Block {
    /// The number of keys that the last row sees: first those of the prefix, then those of the sequence.
    pub(super) fn seen(&self) -> usize {
        self.prefix + self.keys.len()
    }

    /// The number of keys that row `i` of the block sees.
    pub(super) fn visible(&self, i: usize) -> usize {
        if self.causal { self.seen() + i + 1 - self.rows.len() } else { self.seen() }
    }
}
