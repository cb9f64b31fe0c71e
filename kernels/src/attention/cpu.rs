//! One task for every sequence and head; inside, blocks of query rows against all keys that they see.
//!
//! A task writes to memory of its own, which is copied into place afterwards: heads are interleaved in the operands.

use rayon::prelude::*;

use super::Shape;
use crate::Segments;
use crate::gemm::cpu::{MatMut, MatRef, sgemm_block};
use crate::simd::{dot, lanes, vectorised};

/// Query rows of one block. Smaller blocks waste less of a causal triangle, larger ones make better products.
const BLOCK: usize = 64;

pub(super) struct Operands<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) segments: &'a Segments,
    pub(super) shape: &'a Shape,
}

/// What the forward pass gave and the gradient of it.
pub(super) struct Results<'a> {
    pub(super) d_out: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) log_sums: &'a [f32],
}

/// A block of query rows of one sequence: rows `from..to` see the keys `0..seen`.
struct Block {
    from: usize,
    to: usize,
    seen: usize,
}

impl Operands<'_> {
    fn blocks(&self, rows: usize) -> impl Iterator<Item = Block> + use<> {
        let causal = self.shape.causal;
        (0..rows).step_by(BLOCK).map(move |from| {
            let to = (from + BLOCK).min(rows);
            Block { from, to, seen: if causal { to } else { rows } }
        })
    }

    /// Rows of one head of an operand with `heads` heads.
    fn head<'a>(&self, values: &'a [f32], heads: usize, head: usize, first: usize, rows: usize) -> MatRef<'a> {
        let width = heads * self.shape.head_dim;
        MatRef::strided(&values[first * width + head * self.shape.head_dim..], rows, self.shape.head_dim, width)
    }

    /// The scores of a block, scaled, before the softmax: `[rows, seen]`.
    fn scores(&self, first: usize, head: usize, block: &Block, scores: &mut [f32]) {
        let rows = block.to - block.from;
        let q = self.head(self.q, self.shape.heads, head, first + block.from, rows);
        let k = self.head(self.k, self.shape.kv_heads, head / self.shape.group(), first, block.seen);
        sgemm_block(self.shape.scale(), q, k.t(), 0.0, MatMut::new(scores, rows, block.seen));
    }

    /// How many keys row `row` of a sequence sees in a block.
    fn visible(&self, row: usize, block: &Block) -> usize {
        if self.shape.causal { row + 1 } else { block.seen }
    }

    fn longest(&self) -> usize {
        self.segments.ranges().map(|r| r.len()).max().unwrap_or(0)
    }
}

pub(super) fn forward(operands: &Operands, out: &mut [f32]) -> Vec<f32> {
    let (heads, head_dim) = (operands.shape.heads, operands.shape.head_dim);
    let tasks: Vec<(usize, usize)> =
        (0..operands.segments.len()).flat_map(|s| (0..heads).map(move |h| (s, h))).collect();
    let scratch = BLOCK * operands.longest();
    let done: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .par_iter()
        .map_init(|| vec![0.0; scratch], |scratch, &(segment, head)| forward_head(operands, segment, head, scratch))
        .collect();
    scatter(operands.segments, heads, head_dim, done.iter().map(|(values, _)| values.as_slice()), out);
    done.into_iter().flat_map(|(_, log_sums)| log_sums).collect()
}

/// Output `[rows, head_dim]` and log-denominators of one head of one sequence.
fn forward_head(operands: &Operands, segment: usize, head: usize, scratch: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
    let (range, dim) = (operands.segments.range(segment), operands.shape.head_dim);
    let mut out = vec![0.0; range.len() * dim];
    let mut log_sums = vec![0.0; range.len()];
    for block in operands.blocks(range.len()) {
        let rows = block.to - block.from;
        let weights = &mut scratch[..rows * block.seen];
        operands.scores(range.start, head, &block, weights);
        for (i, weights) in weights.chunks_exact_mut(block.seen).enumerate() {
            let (visible, hidden) = weights.split_at_mut(operands.visible(block.from + i, &block));
            hidden.fill(0.0);
            log_sums[block.from + i] = softmax(visible);
        }
        let v =
            operands.head(operands.v, operands.shape.kv_heads, head / operands.shape.group(), range.start, block.seen);
        let out = MatMut::new(&mut out[block.from * dim..block.to * dim], rows, dim);
        sgemm_block(1.0, MatRef::new(weights, rows, block.seen), v, 0.0, out);
    }
    (out, log_sums)
}

/// Gradients of one key-value head of one sequence.
struct HeadGradient {
    dq: Vec<Vec<f32>>, // one [rows, head_dim] for every query head of the group
    dk: Vec<f32>,      // [rows, head_dim]
    dv: Vec<f32>,      // [rows, head_dim]
}

pub(super) fn backward(operands: &Operands, results: &Results, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    let shape = operands.shape;
    let tasks: Vec<(usize, usize)> =
        (0..operands.segments.len()).flat_map(|s| (0..shape.kv_heads).map(move |h| (s, h))).collect();
    let size = BLOCK * operands.longest();
    let done: Vec<HeadGradient> = tasks
        .par_iter()
        .map_init(
            || (vec![0.0; size], vec![0.0; size]),
            |(weights, d_weights), &(segment, head)| {
                backward_head(operands, results, segment, head, weights, d_weights)
            },
        )
        .collect();
    let all_dq = done.iter().flat_map(|d| d.dq.iter().map(Vec::as_slice));
    scatter(operands.segments, shape.heads, shape.head_dim, all_dq, dq);
    scatter(operands.segments, shape.kv_heads, shape.head_dim, done.iter().map(|d| d.dk.as_slice()), dk);
    scatter(operands.segments, shape.kv_heads, shape.head_dim, done.iter().map(|d| d.dv.as_slice()), dv);
}

fn backward_head(
    operands: &Operands,
    results: &Results,
    segment: usize,
    kv_head: usize,
    weights: &mut [f32],
    d_weights: &mut [f32],
) -> HeadGradient {
    let (range, shape) = (operands.segments.range(segment), operands.shape);
    let (first, rows, dim, group) = (range.start, range.len(), shape.head_dim, shape.group());
    let mut gradient =
        HeadGradient { dq: vec![vec![0.0; rows * dim]; group], dk: vec![0.0; rows * dim], dv: vec![0.0; rows * dim] };
    for member in 0..group {
        let head = kv_head * group + member;
        let log_sums = &results.log_sums[first * shape.heads + head * rows..][..rows];
        for block in operands.blocks(rows) {
            let (n, seen) = (block.to - block.from, block.seen);
            let (weights, d_weights) = (&mut weights[..n * seen], &mut d_weights[..n * seen]);
            let d_out = operands.head(results.d_out, shape.heads, head, first + block.from, n);
            let q = operands.head(operands.q, shape.heads, head, first + block.from, n);
            let k = operands.head(operands.k, shape.kv_heads, kv_head, first, seen);
            let v = operands.head(operands.v, shape.kv_heads, kv_head, first, seen);

            operands.scores(first, head, &block, weights);
            sgemm_block(1.0, d_out, v.t(), 0.0, MatMut::new(d_weights, n, seen));
            for i in 0..n {
                let at = ((first + block.from + i) * shape.heads + head) * dim..;
                let pull = dot(&results.d_out[at.clone()][..dim], &results.out[at][..dim]);
                let (w, dw) = (&mut weights[i * seen..][..seen], &mut d_weights[i * seen..][..seen]);
                let visible = operands.visible(block.from + i, &block);
                w[visible..].fill(0.0);
                dw[visible..].fill(0.0);
                backward_row(&mut w[..visible], &mut dw[..visible], log_sums[block.from + i], pull, shape.scale());
            }
            let (w, ds) = (MatRef::new(weights, n, seen), MatRef::new(d_weights, n, seen));
            let dq = &mut gradient.dq[member][block.from * dim..block.to * dim];
            sgemm_block(1.0, ds, k, 0.0, MatMut::new(dq, n, dim));
            sgemm_block(1.0, ds.t(), q, 1.0, MatMut::new(&mut gradient.dk, seen, dim));
            sgemm_block(1.0, w.t(), d_out, 1.0, MatMut::new(&mut gradient.dv, seen, dim));
        }
    }
    gradient
}

/// Copies the values of every sequence and head, `[rows, head_dim]` each, to their columns of `[n, heads * head_dim]`.
fn scatter<'a>(
    segments: &Segments,
    heads: usize,
    head_dim: usize,
    parts: impl Iterator<Item = &'a [f32]>,
    out: &mut [f32],
) {
    for (part, values) in parts.enumerate() {
        let (first, head) = (segments.range(part / heads).start, part % heads);
        for (i, row) in values.chunks_exact(head_dim).enumerate() {
            out[((first + i) * heads + head) * head_dim..][..head_dim].copy_from_slice(row);
        }
    }
}

vectorised! {
    /// Turns scores into weights that sum to 1 and returns the logarithm of the sum of their exponentials.
    fn softmax(row: &mut [f32]) -> f32 {
        let top = lanes::max(row);
        for x in row.iter_mut() {
            *x = lanes::exp(*x - top);
        }
        let total = lanes::sum(row);
        let scale = 1.0 / total;
        for x in row.iter_mut() {
            *x *= scale;
        }
        top + total.ln()
    }

    /// Turns scores into weights and the gradient of the weights into that of the products `q · k`.
    fn backward_row(scores: &mut [f32], d_weights: &mut [f32], log_sum: f32, pull: f32, scale: f32) {
        for (s, d) in scores.iter_mut().zip(d_weights) {
            let w = lanes::exp(*s - log_sum);
            *s = w;
            *d = w * (*d - pull) * scale;
        }
    }
}
