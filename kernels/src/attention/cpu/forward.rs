//! One task for every block of rows and key-value head.

use rayon::prelude::*;

use super::{
    super::{layout::Block, operands::Checked},
    head, sized,
};
use crate::gemm::cpu::{MatMut, MatRef, Onto, Packed, sgemm_packed};
use crate::gemm::pairs::{Pair, PairRows};
use crate::simd::{lanes, vectorised};

/// What one task computes.
struct Task<'a> {
    block: &'a Block,
    kv_head: usize,
    out: MatMut<'a>,      // [rows, group * head_dim]
    log_sums: MatMut<'a>, // [rows, group]
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
struct RoundedScratch {
    joined: Vec<f32>,
    scores: Vec<f32>,     // [rows, seen]
    rows: PairRows,       // of keys, of values and of queries, one after the other
    weights: PairRows,    // [rows, seen / 2]
    keys: Packed<Pair>,   // [head_dim / 2, seen]
    values: Packed<Pair>, // [seen / 2, head_dim]
}

/// Fills `out`, which holds zeros, and returns the logarithms of the denominators, `[n, heads]`.
pub(in super::super) fn forward(operands: &Checked, out: &mut [f32]) -> Vec<f32> {
    for_tasks(operands, out, |task, operands, scratch| task.run(operands, scratch))
}

/// The same with operands and weights rounded to bfloat16.
pub(in super::super) fn forward_bf16(operands: &Checked, out: &mut [f32]) {
    for_tasks(operands, out, |task, operands, scratch| task.run_rounded(operands, scratch));
}

fn for_tasks<S: Default>(
    operands: &Checked,
    out: &mut [f32],
    run: impl Fn(Task<'_>, &Checked, &mut S) + Sync,
) -> Vec<f32> {
    let (layout, shape) = (&operands.layout, &operands.layout.shape);
    let rows = layout.queries.rows();
    let blocks: Vec<Block> = (0..layout.sequences()).flat_map(|sequence| layout.blocks(sequence)).collect();
    let mut log_sums = vec![f32::NEG_INFINITY; rows * shape.heads];

    let ranges = || blocks.iter().map(|block| block.rows.clone());
    let out = MatMut::new(out, rows, shape.heads * shape.head_dim).tiles(ranges(), shape.group() * shape.head_dim);
    let sums = MatMut::new(&mut log_sums, rows, shape.heads).tiles(ranges(), shape.group());
    let places = blocks.iter().flat_map(|block| (0..shape.kv_heads).map(move |kv_head| (block, kv_head)));
    let tasks: Vec<Task> = places
        .zip(out.into_iter().zip(sums))
        .map(|((block, kv_head), (out, log_sums))| Task { block, kv_head, out, log_sums })
        .collect();
    tasks.into_par_iter().for_each_init(S::default, |scratch, task| run(task, operands, scratch));
    log_sums
}

impl Task<'_> {
    fn run(mut self, operands: &Checked, scratch: &mut Scratch) {
        let (layout, block, shape) = (&operands.layout, self.block, &operands.layout.shape);
        let (rows, seen, dim) = (block.rows.len(), block.seen(), shape.head_dim);
        scratch.keys.pack(operands.keys.seen(layout, self.kv_head, block, &mut scratch.joined).t());
        scratch.values.pack(operands.values.seen(layout, self.kv_head, block, &mut scratch.joined));
        let weights = sized(&mut scratch.weights, rows * seen);
        for member in 0..shape.group() {
            let query_head = self.kv_head * shape.group() + member;
            let q = head(operands.q, shape, shape.heads, query_head, block.rows.clone());
            sgemm_packed(shape.scale(), q, &scratch.keys, Onto::Nothing, MatMut::new(weights, rows, seen));
            self.weigh(member, weights, seen);
            let out = self.out.sub(0..rows, member * dim..(member + 1) * dim);
            sgemm_packed(1.0, MatRef::new(weights, rows, seen), &scratch.values, Onto::Nothing, out);
        }
    }

    fn run_rounded(mut self, operands: &Checked, scratch: &mut RoundedScratch) {
        let (layout, block, shape) = (&operands.layout, self.block, &operands.layout.shape);
        let (rows, seen, dim) = (block.rows.len(), block.seen(), shape.head_dim);
        let keys = operands.keys.seen(layout, self.kv_head, block, &mut scratch.joined);
        scratch.keys.pack(scratch.rows.round(keys).t());
        let values = operands.values.seen(layout, self.kv_head, block, &mut scratch.joined);
        scratch.values.pack(scratch.rows.round_columns(values));
        let scores = sized(&mut scratch.scores, rows * seen);
        for member in 0..shape.group() {
            let query_head = self.kv_head * shape.group() + member;
            let q = scratch.rows.round(head(operands.q, shape, shape.heads, query_head, block.rows.clone()));
            sgemm_packed(shape.scale(), q, &scratch.keys, Onto::Nothing, MatMut::new(scores, rows, seen));
            self.weigh(member, scores, seen);
            let weights = scratch.weights.round(MatRef::new(scores, rows, seen));
            let out = self.out.sub(0..rows, member * dim..(member + 1) * dim);
            sgemm_packed(1.0, weights, &scratch.values, Onto::Nothing, out);
        }
    }

    /// Turns the scores of a member of the group, `[rows, seen]`, into weights.
    fn weigh(&mut self, member: usize, scores: &mut [f32], seen: usize) {
        for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
            let (visible, hidden) = row.split_at_mut(self.block.visible(i));
            hidden.fill(0.0);
            self.log_sums.row_mut(i)[member] = softmax(visible);
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
}
