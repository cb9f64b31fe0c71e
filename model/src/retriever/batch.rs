//! Sequences packed without padding.

use kernels::Segments;

use super::init::mix;

/// Rows of several sequences, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedBatch {
    /// The input of every row: an item, or 0 for the slot before a sequence.
    pub ids: Vec<u32>,
    /// Which rows belong together.
    pub segments: Segments,
    /// The item that every row predicts; empty for scoring.
    pub labels: Vec<u32>,
    /// What dropout is keyed with, see [`example_key`]; empty for scoring.
    pub row_keys: Vec<u64>,
    /// Rows at the end that teach nothing, see [`PackedBatch::padded`].
    padding: usize,
}

/// Some neighbouring sequences of a batch.
pub(super) struct BatchPart<'a> {
    pub(super) ids: &'a [u32],
    pub(super) segments: Segments,
}

/// The key of a training example: its rows add their position. A function of what is trained on, not of batch or
/// worker, so every schedule drops the same elements.
#[must_use]
pub fn example_key(epoch: u64, example: u64) -> u64 {
    mix(mix(epoch) ^ example)
}

impl PackedBatch {
    /// A batch that predicts the next item at every position of some windows (see [`windows`](super::windows)); each
    /// window comes with its key.
    ///
    /// A window of `n` items gives `n - 1` inputs and the labels that follow them. If that is less than `max_length`,
    /// the reference would have padded slots in front, the last of which predicts the first item: that slot becomes a
    /// sequence of its own, one row with id 0. The other padded slots predict nothing and are left out.
    pub fn train<'a>(windows: impl IntoIterator<Item = (&'a [u32], u64)>, max_length: usize) -> Self {
        let mut ids = Vec::new();
        let mut labels = Vec::new();
        let mut row_keys = Vec::new();
        let mut lengths = Vec::new();
        for (window, key) in windows {
            let Some((last, inputs)) = window.split_last() else { continue };
            if inputs.len() < max_length {
                ids.push(0);
                labels.push(window[0]);
                row_keys.push(key);
                lengths.push(1);
            }
            if inputs.is_empty() {
                continue;
            }
            ids.extend_from_slice(inputs);
            labels.extend_from_slice(&inputs[1..]);
            labels.push(*last);
            row_keys.extend((1..=inputs.len() as u64).map(|position| key.wrapping_add(position)));
            lengths.push(inputs.len());
        }
        Self { ids, segments: Segments::from_lengths(lengths), labels, row_keys, padding: 0 }
    }

    /// The same batch with more rows and sequences behind it, which teach nothing: so that batches of many lengths have one
    /// shape. A batch that has as many already stays as it is.
    #[must_use]
    pub fn padded(mut self, rows: usize, sequences: usize) -> Self {
        let more = rows.saturating_sub(self.rows());
        let mut lengths: Vec<usize> = self.segments.ranges().map(|range| range.len()).collect();
        if more > 0 {
            lengths.push(more);
        }
        lengths.resize(lengths.len().max(sequences), 0);
        self.ids.resize(self.ids.len() + more, 0);
        self.labels.resize(self.ids.len(), 0);
        self.row_keys.resize(self.ids.len(), 0);
        Self { segments: Segments::from_lengths(lengths), padding: self.padding + more, ..self }
    }

    /// The rows that teach: all but the padding.
    #[must_use]
    pub fn taught(&self) -> usize {
        self.rows() - self.padding
    }

    /// A batch that scores the next item after each history, one sequence per history: its last `max_length` items, or
    /// one row with id 0 where there is no history.
    pub fn score<'a>(histories: impl IntoIterator<Item = &'a [u32]>, max_length: usize) -> Self {
        let mut ids = Vec::new();
        let mut lengths = Vec::new();
        for history in histories {
            let recent = &history[history.len().saturating_sub(max_length)..];
            if recent.is_empty() {
                ids.push(0);
            }
            ids.extend_from_slice(recent);
            lengths.push(recent.len().max(1));
        }
        let segments = Segments::from_lengths(lengths);
        Self { ids, segments, labels: Vec::new(), row_keys: Vec::new(), padding: 0 }
    }

    /// Whole sequences, neighbours together, of about `rows` rows a part.
    pub(super) fn parts(&self, rows: usize) -> Vec<BatchPart<'_>> {
        let mut parts: Vec<BatchPart<'_>> = Vec::new();
        let mut lengths = Vec::new();
        let mut start = 0;
        for (i, range) in self.segments.ranges().enumerate() {
            lengths.push(range.len());
            if range.end - start >= rows || i + 1 == self.segments.len() {
                let segments = Segments::from_lengths(std::mem::take(&mut lengths));
                parts.push(BatchPart { ids: &self.ids[start..range.end], segments });
                start = range.end;
            }
        }
        parts
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids.len()
    }
}
