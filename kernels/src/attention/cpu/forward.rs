//! One task for every block of rows and key-value head.

use half::bf16;
use rayon::prelude::*;

use super::{
    super::{
        layout::{Block, Layout},
        operands::Checked,
    },
    head, sized,
};
use crate::gemm::cpu::{MatMut, MatRef, Onto, Packed, sgemm_packed};
use crate::gemm::pairs::{Pair, PairRows};
use crate::simd::{lanes, vectorised};

/// What one task computes.
struct Task<'a, T> {
    block: &'a Block,
    kv_head: usize,
    out: MatMut<'a, T>, // [rows, group * head_dim]
}

/// Memory that the tasks of a thread share.
#[derive(Default)]
struct Scratch {
    joined: Vec<f32>,  // [seen, head_dim]
    weights: Vec<f32>, // [rows, seen]
    keys: Packed,      // [head_dim, seen]
    values: Packed,    // [seen, head_dim]
}

/// The same for products of bfloat16.
#[derive(Default)]
struct NarrowScratch {
    joined: Vec<bf16>,
    rows: PairRows,       // of keys, of values and of queries, one after the other
    scores: Vec<f32>,     // [rows, seen]
    totals: Vec<f32>,     // [rows]
    weights: PairRows,    // [rows, seen / 2]
    out: Vec<f32>,        // [rows, head_dim]
    keys: Packed<Pair>,   // [head_dim / 2, seen]
    values: Packed<Pair>, // [seen / 2, head_dim]
}

/// Fills `out`, which holds zeros, and returns the logarithms of the denominators, `[n, heads]`.
pub(in super::super) fn forward(operands: &Checked, out: &mut [f32]) -> Vec<f32> {
    let shape = &operands.layout.shape;
    let blocks = blocks(&operands.layout);
    let rows = operands.layout.queries.rows();
    let mut log_sums = vec![f32::NEG_INFINITY; rows * shape.heads];
    let ranges = blocks.iter().map(|block| block.rows.clone());
    let sums = MatMut::new(&mut log_sums, rows, shape.heads).tiles(ranges, shape.group());
    tasks(&operands.layout, &blocks, out)
        .into_par_iter()
        .zip(sums)
        .for_each_init(Scratch::default, |scratch, (task, log_sums)| task.run(operands, log_sums, scratch));
    log_sums
}

/// Fills `out` with the result for operands of bfloat16.
pub(in super::super) fn forward_bf16(operands: &Checked<bf16>, out: &mut [bf16]) {
    let layout = &operands.layout;
    let width = layout.shape.heads * layout.shape.head_dim;
    for blind in (0..layout.sequences()).filter(|&sequence| layout.blocks(sequence).next().is_none()) {
        let rows = layout.queries.range(blind);
        out[rows.start * width..rows.end * width].fill(bf16::ZERO);
    }
    tasks(layout, &blocks(layout), out)
        .into_par_iter()
        .for_each_init(NarrowScratch::default, |scratch, task| task.run_narrow(operands, scratch));
}

fn blocks(layout: &Layout) -> Vec<Block> {
    (0..layout.sequences()).flat_map(|sequence| layout.blocks(sequence)).collect()
}

/// Gives every block and key-value head its place in the result.
fn tasks<'a, T>(layout: &Layout, blocks: &'a [Block], out: &'a mut [T]) -> Vec<Task<'a, T>> {
    let shape = &layout.shape;
    let out = MatMut::new(out, layout.queries.rows(), shape.heads * shape.head_dim);
    let out = out.tiles(blocks.iter().map(|block| block.rows.clone()), shape.group() * shape.head_dim);
    let places = blocks.iter().flat_map(|block| (0..shape.kv_heads).map(move |kv_head| (block, kv_head)));
    places.zip(out).map(|((block, kv_head), out)| Task { block, kv_head, out }).collect()
}

impl Task<'_, f32> {
    fn run(mut self, operands: &Checked, mut log_sums: MatMut, scratch: &mut Scratch) {
        let (layout, block, shape) = (&operands.layout, self.block, &operands.layout.shape);
        let (rows, seen, dim) = (block.rows.len(), block.seen(), shape.head_dim);
        scratch.keys.pack(operands.keys.seen(layout, self.kv_head, block, &mut scratch.joined).t());
        scratch.values.pack(operands.values.seen(layout, self.kv_head, block, &mut scratch.joined));
        let weights = sized(&mut scratch.weights, rows * seen);
        for member in 0..shape.group() {
            let query_head = self.kv_head * shape.group() + member;
            let q = head(operands.q, shape, shape.heads, query_head, block.rows.clone());
            sgemm_packed(shape.scale(), q, &scratch.keys, Onto::Nothing, MatMut::new(weights, rows, seen));
            for (i, row) in weights.chunks_exact_mut(seen).enumerate() {
                let (visible, hidden) = row.split_at_mut(block.visible(i));
                hidden.fill(0.0);
                log_sums.row_mut(i)[member] = softmax(visible);
            }
            let out = self.out.sub(0..rows, member * dim..(member + 1) * dim);
            sgemm_packed(1.0, MatRef::new(weights, rows, seen), &scratch.values, Onto::Nothing, out);
        }
    }
}

impl Task<'_, bf16> {
    /// The weights are divided by their sum behind the second product, where there are fewer numbers.
    fn run_narrow(mut self, operands: &Checked<bf16>, scratch: &mut NarrowScratch) {
        let (layout, block, shape) = (&operands.layout, self.block, &operands.layout.shape);
        let (rows, seen, dim) = (block.rows.len(), block.seen(), shape.head_dim);
        let keys = operands.keys.seen(layout, self.kv_head, block, &mut scratch.joined);
        scratch.keys.pack(scratch.rows.copy(keys).t());
        let values = operands.values.seen(layout, self.kv_head, block, &mut scratch.joined);
        scratch.values.pack(scratch.rows.copy_columns(values));
        let scores = sized(&mut scratch.scores, rows * seen);
        let out = sized(&mut scratch.out, rows * dim);
        for member in 0..shape.group() {
            let query_head = self.kv_head * shape.group() + member;
            let q = scratch.rows.copy(head(operands.q, shape, shape.heads, query_head, block.rows.clone()));
            sgemm_packed(shape.scale(), q, &scratch.keys, Onto::Nothing, MatMut::new(scores, rows, seen));
            scratch.totals.clear();
            let totals = &mut scratch.totals;
            let weights = scratch.weights.fill(MatRef::new(scores, rows, seen), |row, weights| {
                let visible = block.visible(totals.len());
                let (weights, hidden) = weights.split_at_mut(visible);
                hidden.fill(bf16::ZERO);
                totals.push(exponentials(&row[..visible], weights));
            });
            sgemm_packed(1.0, weights, &scratch.values, Onto::Nothing, MatMut::new(out, rows, dim));
            let mut place = self.out.sub(0..rows, member * dim..(member + 1) * dim);
            for (i, (row, total)) in out.chunks_exact(dim).zip(&scratch.totals).enumerate() {
                scaled(1.0 / total, row, place.row_mut(i));
            }
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

    /// Turns scores into weights of which the largest is 1, rounded, and returns their sum before that.
    fn exponentials(row: &[f32], weights: &mut [bf16]) -> f32 {
        let top = lanes::max(row);
        lanes::sum_of(row, weights, |x, weight| {
            let e = lanes::exp(x - top);
            *weight = bf16::from_bits(lanes::bf16_bits(e));
            e
        })
    }

    /// `factor * row`, rounded.
    fn scaled(factor: f32, row: &[f32], into: &mut [bf16]) {
        for (into, &x) in into.iter_mut().zip(row) {
            *into = bf16::from_bits(lanes::bf16_bits(factor * x));
        }
    }
}
