//! What all members know of a step: enough for anybody to learn from it what any item does.

use std::ops::Range;

use kernels::grad_norm::Clipping;
use kernels::{Tensor, embedding};

use crate::Result;
use crate::retriever::PackedBatch;

/// A step.
pub(super) struct Step {
    /// Its number, from 1.
    pub(super) number: u64,
    /// The items that it names, as input or as label, in order.
    pub(super) named: Vec<u32>,
    /// Of every row the place of its label among the named.
    pub(super) labels: Vec<u32>,
    /// The hidden states of all slices: `[rows, hidden]`.
    pub(super) hidden: Tensor,
    /// The log of the sum of exponentials of every row, over the whole catalogue.
    pub(super) lse: Vec<f32>,
    /// The gradients of the named items by way of the input: `[named, hidden]`, on the host.
    pub(super) inputs: Vec<f32>,
    /// The norm of all gradients, and what it leads to.
    pub(super) clipping: Clipping,
}

impl Step {
    pub(super) fn rows(&self) -> usize {
        self.labels.len()
    }

    /// What a row counts.
    pub(super) fn scale(&self) -> f32 {
        1.0 / self.rows() as f32
    }

    /// The rows whose labels are in a range of the named, and those labels, as items.
    pub(super) fn labelled(&self, among: &Range<usize>) -> (Vec<u32>, Vec<u32>) {
        let labels = self.labels.iter().enumerate().filter(|(_, place)| among.contains(&(**place as usize)));
        labels.map(|(row, place)| (row as u32, self.named[*place as usize])).unzip()
    }

    /// Bytes of what is remembered.
    pub(super) fn bytes(&self) -> usize {
        size_of::<f32>()
            * (self.named.len() + self.labels.len() + self.hidden.len() + self.lse.len() + self.inputs.len())
    }
}

/// The items that batches name, in order.
pub(super) fn named(batches: &[PackedBatch]) -> Vec<u32> {
    let mut named: Vec<u32> = batches.iter().flat_map(|batch| batch.ids.iter().chain(&batch.labels)).copied().collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// The places of items among sorted ones that they all are of.
pub(super) fn places(items: &[u32], sorted: &[u32]) -> Vec<u32> {
    items.iter().map(|item| sorted.partition_point(|other| other < item) as u32).collect()
}

/// The log of the sum of exponentials of every row, from that of each part: `parts` is `[parts, rows]`.
pub(super) fn merged(parts: &[f32], rows: usize) -> Vec<f32> {
    let of_row = |row: usize| {
        let parts = parts.iter().skip(row).step_by(rows.max(1)).map(|lse| f64::from(*lse));
        let most = parts.clone().fold(f64::NEG_INFINITY, f64::max);
        (most + parts.map(|lse| (lse - most).exp()).sum::<f64>().ln()) as f32
    };
    (0..rows).map(of_row).collect()
}

/// The items that the rows of a step should have named.
pub(super) struct Labels {
    /// Their embeddings, row by row: `[rows, hidden]`.
    rows: Vec<f32>,
    losses: Vec<f32>,
    width: usize,
    scale: f32,
}

impl Labels {
    /// Those of a step, given the embeddings and biases of the named items.
    pub(super) fn of(step: &Step, token: &Tensor, bias: &[f32]) -> Result<Self> {
        let (rows, hidden) = (embedding::forward(token, &step.labels)?.to_f32(), step.hidden.to_f32());
        let width = step.hidden.cols();
        let logit = |row: &[f32], hidden: &[f32], label: u32| {
            let products = row.iter().zip(hidden).map(|(w, x)| f64::from(*w) * f64::from(*x));
            products.sum::<f64>() + f64::from(bias[label as usize])
        };
        let pairs = rows.chunks_exact(width).zip(hidden.chunks_exact(width)).zip(&step.labels).zip(&step.lse);
        let losses = pairs.map(|(((row, hidden), label), lse)| f64::from(*lse) - logit(row, hidden, *label));
        let losses = losses.map(|loss| loss as f32).collect();
        Ok(Self { rows, losses, width, scale: step.scale() })
    }

    /// The loss of some rows, divided by the rows of the step.
    pub(super) fn loss(&self, rows: Range<usize>) -> f64 {
        self.losses[rows].iter().map(|loss| f64::from(*loss)).sum::<f64>() * f64::from(self.scale)
    }

    /// What labels take from the gradients of the hidden states, on the host.
    pub(super) fn gradient(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.rows.iter().map(|w| -self.scale * w).collect();
        Ok(Tensor::from_f32(&[self.losses.len(), self.width], values)?)
    }
}
