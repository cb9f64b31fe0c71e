//! How long training sequences are cut.

use std::ops::Range;

/// The windows of a training sequence of `len` items, each with its label: the last window first.
///
/// - From `2 · max_length` items on, windows of `max_length` items are cut from the end; a head that fills no whole
///   window is dropped.
/// - A shorter sequence is one window, its last `max_length + 1` items: so many inputs and one more label.
///
/// # Source
/// The public LRURec code with its sliding step of one window.
#[must_use]
pub fn windows(len: usize, max_length: usize) -> Vec<Range<usize>> {
    if len == 0 || max_length == 0 {
        return Vec::new();
    }
    if len < 2 * max_length {
        return std::iter::once(len.saturating_sub(max_length + 1)..len).collect();
    }
    (0..len / max_length).map(|i| len - (i + 1) * max_length..len - i * max_length).collect()
}
