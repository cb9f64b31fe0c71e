//! Boundaries of packed sequences.

use crate::{Error, Result};

/// Where each packed sequence begins: `offsets[i]..offsets[i + 1]` are the rows of sequence `i`.
///
/// Rows of different sequences never see each other: recurrences restart and attention stops at a boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    offsets: Vec<usize>,
}

impl Segments {
    /// Segments with the given lengths; empty ones are allowed. Lengths whose sum is beyond all numbers fit no tensor.
    #[must_use]
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for len in lengths {
            end = len.saturating_add(end);
            offsets.push(end);
        }
        Self { offsets }
    }

    /// The number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sequence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of rows of all sequences together.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The rows of sequence `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Segments::len`].
    #[must_use]
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    /// The row ranges of all sequences in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0]..w[1])
    }

    /// The row of the last element of every sequence; an error names the first empty one.
    pub fn last_rows(&self) -> Result<Vec<usize>> {
        self.ranges()
            .enumerate()
            .map(|(i, r)| {
                if r.is_empty() {
                    Err(Error::Setting { op: "segments", what: format!("sequence {i} is empty") })
                } else {
                    Ok(r.end - 1)
                }
            })
            .collect()
    }
}
