//! One run through the network: which sequences, at which positions, with or without dropout.

use kernels::{Segments, dropout::Mask};

use super::lora::mix;

/// Packed sequences.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) ids: Vec<u32>,
    pub(crate) segments: Segments,
    pub(crate) positions: Vec<u32>,
    /// Seed and one key for every row; none outside of training.
    dropout: Option<(u64, Vec<u64>)>,
}

impl Pass {
    /// Sequences to be scored.
    pub(crate) fn new<'a>(sequences: impl Iterator<Item = &'a [u32]> + Clone) -> Self {
        Self::behind(0, sequences)
    }

    /// What follows the first `shared` tokens of sequences, which all share these.
    pub(crate) fn behind<'a>(shared: usize, sequences: impl Iterator<Item = &'a [u32]> + Clone) -> Self {
        let shared = shared as u32;
        Self {
            ids: sequences.clone().flatten().copied().collect(),
            segments: Segments::from_lengths(sequences.clone().map(<[u32]>::len)),
            positions: sequences.flat_map(|s| shared..shared + s.len() as u32).collect(),
            dropout: None,
        }
    }

    /// The same with dropout: the mask of a row follows from the seed, the key of its sequence and its position.
    pub(crate) fn with_dropout(mut self, seed: u64, keys: impl Iterator<Item = u64>) -> Self {
        let rows = self.segments.ranges().zip(keys);
        let rows = rows.flat_map(|(range, key)| (0..range.len() as u64).map(move |i| mix(mix(key).wrapping_add(i))));
        self.dropout = Some((seed, rows.collect()));
        self
    }

    /// The positions of some rows.
    pub(crate) fn positions_of(&self, rows: &[u32]) -> Vec<u32> {
        rows.iter().map(|&row| self.positions[row as usize]).collect()
    }

    /// The keys of all rows.
    pub(crate) fn keys(&self) -> Keys<'_> {
        Keys { dropout: self.dropout.as_ref().map(|(seed, keys)| (*seed, keys.as_slice())) }
    }

    /// The keys of some rows.
    pub(crate) fn keys_of(&self, rows: &[u32]) -> Option<(u64, Vec<u64>)> {
        self.dropout.as_ref().map(|(seed, keys)| (*seed, rows.iter().map(|&r| keys[r as usize]).collect()))
    }
}

/// What dropout masks are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) dropout: Option<(u64, &'a [u64])>,
}

impl<'a> Keys<'a> {
    /// The mask of one place in the network, if anything is dropped there.
    pub(crate) fn mask(&self, site: u32, rate: f32) -> Option<Mask> {
        self.dropout.filter(|_| rate > 0.0).map(|(seed, _)| Mask { seed, site, rate })
    }

    pub(crate) fn rows(&self) -> &'a [u64] {
        self.dropout.map_or(&[], |(_, keys)| keys)
    }
}
