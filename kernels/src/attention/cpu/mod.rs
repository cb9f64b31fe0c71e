//! Blocks of query rows against all keys that they see, one key-value head at a time.
//!
//! Keys and values are packed once for all query heads that read them. A task writes straight to its rows and columns of
//! the results; rows × keys are held for one block only.

mod backward;
mod cache;
mod forward;

pub(super) use backward::{Results, backward};
pub(super) use cache::Rows;
pub(super) use forward::{forward, forward_bf16};

use super::{
    Shape,
    layout::{Block, Layout},
    operands::Source,
};
use crate::gemm::cpu::MatRef;

/// Some rows of one head of an array with `heads` heads.
fn head<'a, T>(
    values: &'a [T],
    shape: &Shape,
    heads: usize,
    head: usize,
    rows: std::ops::Range<usize>,
) -> MatRef<'a, T> {
    let width = heads * shape.head_dim;
    MatRef::strided(&values[rows.start * width + head * shape.head_dim..], rows.len(), shape.head_dim, width)
}

impl<T: Copy> Source<'_, T> {
    /// The rows of one head that a block sees, `[seen, head_dim]`: those of the prefix before those of the sequence.
    ///
    /// With a prefix they are copied to `joined`, so that products run over both in one go.
    fn seen<'s>(&'s self, layout: &Layout, kv_head: usize, block: &Block, joined: &'s mut Vec<T>) -> MatRef<'s, T> {
        let Shape { kv_heads, head_dim, .. } = layout.shape;
        if block.prefix == 0 {
            return head(self.own, &layout.shape, kv_heads, kv_head, block.keys.clone());
        }
        joined.clear();
        for (values, rows) in [(self.prefix, 0..block.prefix), (self.own, block.keys.clone())] {
            let rows = rows.map(|row| &values[(row * kv_heads + kv_head) * head_dim..][..head_dim]);
            rows.for_each(|row| joined.extend_from_slice(row));
        }
        MatRef::new(joined, block.seen(), head_dim)
    }
}

/// The first `len` floats of some memory, which grows as needed; they hold anything.
fn sized(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}
