//! Attention over packed sequences, head by head.

use candle_core::Tensor;
use mllm4rec_kernels::Segments;
use mllm4rec_kernels::attention::{self, Shape};

use crate::oracle::{Operand, Oracle, Outcome, constant, softmax};

#[test]
fn packed_sequences_with_grouped_heads() -> Outcome {
    // 65 and 130 are longer than one and two blocks of query rows.
    let lengths: [&[usize]; 4] = [&[1], &[3, 0, 5], &[65, 1, 2], &[130]];
    for (lengths, causal) in lengths.into_iter().flat_map(|l| [(l, true), (l, false)]) {
        for (heads, kv_heads, head_dim) in [(1, 1, 1), (4, 2, 6), (3, 1, 17)] {
            let shape = Shape { heads, kv_heads, head_dim, causal };
            compare(lengths, &shape)?;
        }
    }
    Ok(())
}

fn compare(lengths: &[usize], shape: &Shape) -> Outcome {
    let segments = Segments::from_lengths(lengths.iter().copied());
    let operand = |seed: u64, heads: usize| Operand::noise(seed, &[segments.rows(), heads * shape.head_dim]);
    let (q, k, v) = (operand(1, shape.heads)?, operand(2, shape.kv_heads)?, operand(3, shape.kv_heads)?);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let y = by_heads(&q.theirs, &k.theirs, &v.theirs, &segments, shape)?;
    let oracle = Oracle::new((lengths, shape), y, longest.max(shape.head_dim))?;

    let (out, saved) = attention::forward(&q.ours, &k.ours, &v.ours, &segments, shape)?;
    oracle.result(&out)?;
    let (dq, dk, dv) = attention::backward(&oracle.dy, &q.ours, &k.ours, &v.ours, &out, &saved, &segments, shape)?;
    oracle.gradient("dq", &dq, &q)?;
    oracle.gradient("dk", &dk, &k)?;
    oracle.gradient("dv", &dv, &v)
}

/// Sequence by sequence and head by head: `softmax(q · kᵀ / √d) · v`.
fn by_heads(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments, shape: &Shape) -> candle_core::Result<Tensor> {
    let mut sequences = Vec::new();
    for rows in segments.ranges().filter(|r| !r.is_empty()) {
        let part = |t: &Tensor, head: usize| {
            let rows = t.narrow(0, rows.start, rows.len())?;
            rows.narrow(1, head * shape.head_dim, shape.head_dim)?.contiguous() // [rows, head_dim]
        };
        let mut heads = Vec::new();
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads);
            let scores = (part(q, head)?.matmul(&part(k, kv)?.t()?)? / (shape.head_dim as f64).sqrt())?;
            let scores = if shape.causal { (scores + hidden_later(rows.len())?)? } else { scores };
            heads.push(softmax(&scores)?.matmul(&part(v, kv)?)?);
        }
        sequences.push(Tensor::cat(&heads, 1)?);
    }
    Tensor::cat(&sequences, 0)
}

/// What is added to the scores of a sequence so that no row sees a later one.
fn hidden_later(n: usize) -> candle_core::Result<Tensor> {
    let hide = |i: usize| if i % n > i / n { -1e9 } else { 0.0 };
    constant(&[n, n], &(0..n * n).map(hide).collect::<Vec<_>>())
}
