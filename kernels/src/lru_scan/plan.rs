//! Which rows a block of a device works on: short sequences together, long ones in chunks.

use std::sync::Arc;

use crate::cuda::{Arg, Array, Stream};
use crate::{Result, Segments};

const OP: &str = "lru_scan";
/// Words that describe an item, and those before the first.
const WORDS: usize = 4;
/// Rows behind the last one whose marks kernels may read.
const MARGIN: usize = 1024;

/// How packed rows are cut into items of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Neighbouring sequences are joined up to so many rows; at least one.
    pub(super) join: usize,
    /// Longer sequences are cut into chunks of so many rows: a power of two, no less than `join`.
    pub(super) chunk: usize,
    /// A state is kept for so many rows of an item: a divisor of the chunk.
    pub(super) tile: usize,
}

impl Cut {
    /// The most items that so many rows of so many sequences can become, whatever the lengths: launches depend on it.
    ///
    /// A sequence of `L` rows is at most `L / chunk + 1` items. Also, of two neighbouring items that are no chunks the
    /// first would not have had room for a sequence of the second, and there are no more unfinished chunks and no more
    /// interruptions of such neighbours than whole chunks.
    pub(super) fn items(&self, rows: usize, sequences: usize) -> usize {
        let by_rows = if rows == 0 { 0 } else { 3 * rows.div_ceil(self.join) + 1 };
        by_rows.min(rows / self.chunk + sequences)
    }

    /// The most states that are kept.
    pub(super) fn slots(&self, rows: usize, sequences: usize) -> usize {
        rows / self.tile + self.items(rows, sequences)
    }

    /// Whether a sequence of so many rows would be cut.
    pub(super) fn cuts(&self, rows: usize) -> bool {
        rows > self.chunk
    }
}

/// Rows that one block works on in their order: whole sequences, or a chunk of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Where its first state is kept.
    pub(super) slot: usize,
    /// Whether it begins in the midst of a sequence.
    pub(super) goes_on: bool,
    /// Items of its sequence behind it.
    pub(super) behind: usize,
}

/// The items of packed rows, in order.
pub(super) fn items(segments: &Segments, cut: Cut) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for range in segments.ranges().filter(|range| !range.is_empty()) {
        let joined = |last: &&mut Item| !last.goes_on && last.rows + range.len() <= cut.join;
        if let Some(last) = items.last_mut().filter(joined) {
            last.rows += range.len();
            continue;
        }
        let chunks = range.len().div_ceil(cut.chunk);
        items.extend((0..chunks).map(|chunk| {
            let first = range.start + chunk * cut.chunk;
            let rows = cut.chunk.min(range.end - first);
            Item { first, rows, slot: 0, goes_on: chunk > 0, behind: chunks - 1 - chunk }
        }));
    }
    let mut slot = 0;
    for item in &mut items {
        item.slot = slot;
        slot += item.rows.div_ceil(cut.tile);
    }
    items
}

/// The list of items and the marks of the rows where sequences begin, in the memory of a device; `items.cuh` reads them.
///
/// Its length is a function of the number of rows and of sequences, not of the lengths.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cut: Cut,
    pub(super) rows: usize,
    /// Blocks that items need at most.
    pub(super) items: usize,
    /// States that are kept at most.
    pub(super) slots: usize,
    words: Arc<Array>,
    len: usize,
}

impl Plan {
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if there are more rows than a kernel can count.
    pub(super) fn new(on: &Stream, segments: &Segments, cut: Cut) -> Result<Self> {
        let (rows, sequences) = (segments.rows(), segments.len());
        Arg::count(OP, rows.saturating_add(MARGIN))?;
        let (items, slots) = (cut.items(rows, sequences), cut.slots(rows, sequences));
        let words = words(segments, cut, items);
        Ok(Self { cut, rows, items, slots, len: words.len(), words: Arc::new(on.upload(&words)?) })
    }

    /// What launches and memory depend on.
    #[cfg(test)]
    pub(super) fn bounds(&self) -> [usize; 3] {
        [self.items, self.slots, self.len]
    }

    /// Where kernels read the list.
    pub(super) fn work(&self) -> Arg {
        self.words.arg()
    }

    /// Where they read the marks.
    pub(super) fn starts(&self) -> Arg {
        let begin = WORDS * (1 + self.items) * size_of::<u32>();
        Arg::Address(self.words.arg().address().offset(begin))
    }
}

/// By content. A device that fails makes nothing equal.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let words = |plan: &Self| plan.words.read::<u32>(plan.len);
        self.cut == other.cut
            && self.rows == other.rows
            && matches!((words(self), words(other)), (Ok(a), Ok(b)) if a == b)
    }
}

/// The list, with room for so many items, and the marks. All numbers were counted: they fit.
fn words(segments: &Segments, cut: Cut, capacity: usize) -> Vec<u32> {
    let items = items(segments, cut);
    debug_assert!(items.len() <= capacity);
    let begin = WORDS * (1 + capacity);
    let mut words = vec![0; begin + (segments.rows() + MARGIN).div_ceil(32)];
    words[0] = items.len() as u32;
    for (place, item) in words[WORDS..].chunks_exact_mut(WORDS).zip(&items) {
        let rest = item.behind << 1 | usize::from(item.goes_on);
        place.copy_from_slice(&[item.first as u32, item.rows as u32, item.slot as u32, rest as u32]);
    }
    // The row behind the last is a begin too, of nothing.
    for start in segments.ranges().map(|range| range.start).chain([segments.rows()]) {
        words[begin + start / 32] |= 1 << (start % 32);
    }
    words
}
