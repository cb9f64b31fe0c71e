//! Left-padded batches as sequences without padding.

use std::path::Path;

use kernels::Tensor;

use crate::golden;

/// Token ids `[sequences, length]` and the mask of what is no padding.
pub(crate) struct Batch {
    ids: Vec<i64>,
    mask: Vec<i64>,
    sequences: usize,
}

impl Batch {
    /// Two tensors of one file; the number of sequences is `sequences`.
    pub(crate) fn read(path: &Path, ids: &str, mask: &str, sequences: usize) -> Self {
        Self { ids: golden::integers(path, ids), mask: golden::integers(path, mask), sequences }
    }

    fn length(&self) -> usize {
        self.ids.len() / self.sequences
    }

    /// The sequences without their padding.
    pub(crate) fn sequences(&self) -> Vec<Vec<u32>> {
        let rows = self.ids.chunks(self.length()).zip(self.mask.chunks(self.length()));
        rows.map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, m)| **m == 1).map(|(id, _)| *id as u32).collect())
            .collect()
    }

    /// The rows of `[sequences, length, width]` that are no padding, sequence by sequence, flat.
    pub(crate) fn unpadded(&self, tensor: &Tensor) -> Vec<Vec<f32>> {
        let width = tensor.cols();
        let values = tensor.f32().unwrap();
        let masks = self.mask.chunks(self.length()).zip(values.chunks(self.length() * width));
        masks
            .map(|(mask, rows)| {
                let kept = mask.iter().zip(rows.chunks(width)).filter(|(m, _)| **m == 1);
                kept.flat_map(|(_, row)| row.iter().copied()).collect()
            })
            .collect()
    }
}
