//! One task for every part of the sequences and key-value head.
//!
//! A part is one sequence, unless the gradient of the prefix is asked for: then sequences are put together to few parts,
//! each sums over its sequences in order, and the parts are added in order at the end.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    super::{
        layout::{Block, Layout},
        operands::Checked,
    },
    head, sized,
};
use crate::Segments;
use crate::gemm::cpu::{MatMut, MatRef, Onto, Packed, sgemm_block, sgemm_packed};
use crate::simd::{add, dot, lanes, vectorised};

/// The most parts whose gradients of the prefix are kept apart: part of the order of summation, so it is a constant.
const PARTS: usize = 16;

/// What the forward pass gave and the gradient of it.
pub(in super::super) struct Results<'a> {
    pub(in super::super) d_out: &'a [f32],    // [n, heads * head_dim]
    pub(in super::super) out: &'a [f32],      // [n, heads * head_dim]
    pub(in super::super) log_sums: &'a [f32], // [n, heads]
}

/// Fills `dq`, `dk` and `dv`, which hold zeros; adds to the gradient of the keys and the values of the prefix.
pub(in super::super) fn backward(
    operands: &Checked,
    results: &Results,
    [dq, dk, dv]: [&mut [f32]; 3],
    d_prefix: Option<[&mut [f32]; 2]>,
) {
    if operands.q.is_empty() {
        return;
    }
    let layout = &operands.layout;
    let parts = parts(layout.sequences(), d_prefix.is_some());
    // Of the prefix no rows are kept unless they are asked for.
    let prefix_rows = if d_prefix.is_some() { layout.prefix } else { 0 };
    let prefix_len = prefix_rows * layout.shape.kv_heads * layout.shape.head_dim;
    let [mut prefix_dk, mut prefix_dv] = [(); 2].map(|()| vec![0.0; parts.len() * prefix_len]);

    let dk = KeyGradient::tiles(layout, &parts, dk, prefix_rows, &mut prefix_dk);
    let dv = KeyGradient::tiles(layout, &parts, dv, prefix_rows, &mut prefix_dv);
    tasks(operands, results, &parts, dq, dk.into_iter().zip(dv))
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, task| task.run(scratch));

    if let Some([dk, dv]) = d_prefix {
        prefix_dk.chunks_exact(prefix_len.max(1)).for_each(|part| add(dk, part));
        prefix_dv.chunks_exact(prefix_len.max(1)).for_each(|part| add(dv, part));
    }
}

/// Cuts the sequences into parts: single ones, or few parts where sums are kept for each.
fn parts(sequences: usize, few: bool) -> Vec<Range<usize>> {
    let length = if few { sequences.div_ceil(PARTS).max(1) } else { 1 };
    (0..sequences).step_by(length).map(|first| first..(first + length).min(sequences)).collect()
}

/// Gives every part and key-value head its place in the gradients.
fn tasks<'a>(
    operands: &'a Checked<'a>,
    results: &'a Results<'a>,
    parts: &'a [Range<usize>],
    dq: &'a mut [f32],
    keys: impl Iterator<Item = (KeyGradient<'a>, KeyGradient<'a>)>,
) -> Vec<Task<'a>> {
    let (layout, shape) = (&operands.layout, &operands.layout.shape);
    let dq = MatMut::new(dq, layout.queries.rows(), shape.heads * shape.head_dim);
    let dq = dq.tiles(parts.iter().map(|part| rows_of(&layout.queries, part)), shape.group() * shape.head_dim);
    let places = parts.iter().flat_map(|part| (0..shape.kv_heads).map(move |kv_head| (part, kv_head)));
    places
        .zip(dq.into_iter().zip(keys))
        .map(|((sequences, kv_head), (dq, (dk, dv)))| Task { operands, results, sequences, kv_head, dq, dk, dv })
        .collect()
}

/// The rows of neighbouring sequences, of which there is at least one.
fn rows_of(segments: &Segments, sequences: &Range<usize>) -> Range<usize> {
    segments.range(sequences.start).start..segments.range(sequences.end - 1).end
}

/// The gradient of the keys, or of the values, of one part and key-value head.
struct KeyGradient<'a> {
    own: MatMut<'a>,    // [key rows of the part, head_dim]
    prefix: MatMut<'a>, // [p, head_dim], or without rows
}

impl<'a> KeyGradient<'a> {
    /// Cuts the gradients into those of all parts and heads.
    fn tiles(
        layout: &Layout,
        parts: &[Range<usize>],
        own: &'a mut [f32],
        prefix_rows: usize,
        prefix: &'a mut [f32],
    ) -> Vec<Self> {
        let (dim, width) = (layout.shape.head_dim, layout.shape.kv_heads * layout.shape.head_dim);
        let own = MatMut::new(own, layout.keys.rows(), width);
        let own = own.tiles(parts.iter().map(|part| rows_of(&layout.keys, part)), dim);
        let prefix = MatMut::new(prefix, parts.len() * prefix_rows, width);
        let prefix = prefix.tiles((0..parts.len()).map(|i| i * prefix_rows..(i + 1) * prefix_rows), dim);
        own.into_iter().zip(prefix).map(|(own, prefix)| Self { own, prefix }).collect()
    }

    /// Adds `weightsᵀ · rows`; the weights of the prefix come first, `own` says where the others belong.
    fn add(&mut self, weights: MatRef, rows: MatRef, prefix: usize, own: Range<usize>) {
        let (prefix_rows, cols) = (self.prefix.rows(), 0..self.own.cols());
        if prefix_rows > 0 {
            let place = self.prefix.sub(0..prefix_rows, cols.clone());
            sgemm_block(1.0, weights.cols(0..prefix).t(), rows, Onto::Result, place);
        }
        let weights = weights.cols(prefix..prefix + own.len());
        sgemm_block(1.0, weights.t(), rows, Onto::Result, self.own.sub(own, cols));
    }
}

/// What one task computes.
struct Task<'a> {
    operands: &'a Checked<'a>,
    results: &'a Results<'a>,
    sequences: &'a Range<usize>,
    kv_head: usize,
    dq: MatMut<'a>, // [query rows of the part, group * head_dim]
    dk: KeyGradient<'a>,
    dv: KeyGradient<'a>,
}

/// Memory that the tasks of a thread share.
#[derive(Default)]
struct Scratch {
    joined: Vec<f32>,          // [seen, head_dim]
    weights: Vec<f32>,         // [rows, seen]
    d_weights: Vec<f32>,       // [rows, seen]
    keys: Packed,              // [seen, head_dim]
    keys_transposed: Packed,   // [head_dim, seen]
    values_transposed: Packed, // [head_dim, seen]
}

impl Task<'_> {
    fn run(mut self, scratch: &mut Scratch) {
        let layout = &self.operands.layout;
        for block in self.sequences.clone().flat_map(|sequence| layout.blocks(sequence)) {
            let k = self.operands.keys.seen(layout, self.kv_head, &block, &mut scratch.joined);
            scratch.keys.pack(k);
            scratch.keys_transposed.pack(k.t());
            let v = self.operands.values.seen(layout, self.kv_head, &block, &mut scratch.joined);
            scratch.values_transposed.pack(v.t());
            for member in 0..layout.shape.group() {
                self.member(&block, member, scratch);
            }
        }
    }

    /// Adds what the rows of a block contribute in one query head of the group.
    fn member(&mut self, block: &Block, member: usize, scratch: &mut Scratch) {
        let (layout, shape) = (&self.operands.layout, &self.operands.layout.shape);
        let (n, seen, dim) = (block.rows.len(), block.seen(), shape.head_dim);
        let query_head = self.kv_head * shape.group() + member;
        let q = head(self.operands.q, shape, shape.heads, query_head, block.rows.clone());
        let d_out = head(self.results.d_out, shape, shape.heads, query_head, block.rows.clone());

        let weights = sized(&mut scratch.weights, n * seen);
        let d_weights = sized(&mut scratch.d_weights, n * seen);
        sgemm_packed(shape.scale(), q, &scratch.keys_transposed, Onto::Nothing, MatMut::new(weights, n, seen));
        sgemm_packed(1.0, d_out, &scratch.values_transposed, Onto::Nothing, MatMut::new(d_weights, n, seen));
        self.softmax_backward(block, query_head, weights, d_weights);
        let (weights, d_scores) = (MatRef::new(weights, n, seen), MatRef::new(d_weights, n, seen));

        let (first_query, first_key) =
            (rows_of(&layout.queries, self.sequences).start, rows_of(&layout.keys, self.sequences).start);
        let rows = block.rows.start - first_query..block.rows.end - first_query;
        let dq = self.dq.sub(rows, member * dim..(member + 1) * dim);
        sgemm_packed(1.0, d_scores, &scratch.keys, Onto::Nothing, dq);
        let own = block.keys.start - first_key..block.keys.end - first_key;
        self.dk.add(d_scores, q, block.prefix, own.clone());
        self.dv.add(weights, d_out, block.prefix, own);
    }

    /// Turns scores into weights and the gradient of the weights into that of the products `q · k`, row by row.
    fn softmax_backward(&self, block: &Block, query_head: usize, scores: &mut [f32], d_weights: &mut [f32]) {
        let (shape, seen) = (&self.operands.layout.shape, block.seen());
        let rows = scores.chunks_exact_mut(seen).zip(d_weights.chunks_exact_mut(seen));
        for (i, (scores, d_weights)) in rows.enumerate() {
            let at = (block.rows.start + i) * shape.heads + query_head;
            let features = at * shape.head_dim..(at + 1) * shape.head_dim;
            let pull = dot(&self.results.d_out[features.clone()], &self.results.out[features]);
            let (scores, hidden) = scores.split_at_mut(block.visible(i));
            let (d_weights, d_hidden) = d_weights.split_at_mut(block.visible(i));
            hidden.fill(0.0);
            d_hidden.fill(0.0);
            backward_row(scores, d_weights, self.results.log_sums[at], pull, shape.scale());
        }
    }
}

vectorised! {
    /// Turns scores into weights and the gradient of the weights into that of the products `q · k`.
    fn backward_row(scores: &mut [f32], d_weights: &mut [f32], log_sum: f32, pull: f32, scale: f32) {
        for (s, d) in scores.iter_mut().zip(d_weights) {
            let w = lanes::exp(*s - log_sum);
            *s = w;
            *d = w * (*d - pull) * scale;
        }
    }
}
