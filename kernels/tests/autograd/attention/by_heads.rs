//! Attention as candle computes it: sequence by sequence and head by head.

use candle_core::{DType, Device, Result, Tensor};
use mllm4rec_kernels::Segments;
use mllm4rec_kernels::attention::{Mask, Shape};

use crate::oracle::{constant, softmax};

/// Keys and values of the sequences, and those that all of them see before.
pub(crate) struct Seen<'a> {
    pub(crate) k: &'a Tensor,
    pub(crate) v: &'a Tensor,
    pub(crate) prefix: Option<(&'a Tensor, &'a Tensor)>,
}

/// Where the queries and the keys of each sequence begin.
pub(crate) fn segments(mask: Mask<'_>) -> (&Segments, &Segments) {
    match mask {
        Mask::Causal(segments) | Mask::Full(segments) => (segments, segments),
        Mask::Cross { queries, keys } => (queries, keys),
    }
}

/// `softmax(q · kᵀ / √d) · v` of every sequence and head; zeros where there is no key.
pub(crate) fn by_heads(q: &Tensor, seen: &Seen<'_>, mask: Mask<'_>, shape: &Shape) -> Result<Tensor> {
    let (queries, keys) = segments(mask);
    let mut sequences = Vec::new();
    for (rows, keys) in queries.ranges().zip(keys.ranges()).filter(|(rows, _)| !rows.is_empty()) {
        let q = q.narrow(0, rows.start, rows.len())?;
        let (prefix_k, prefix_v) = seen.prefix.unzip();
        let k = joined(prefix_k, seen.k, keys.start, keys.len())?;
        let v = joined(prefix_v, seen.v, keys.start, keys.len())?;
        sequences.push(match (k, v) {
            (Some(k), Some(v)) => one_sequence(&q, &k, &v, matches!(mask, Mask::Causal(_)), shape)?,
            _ => Tensor::zeros(q.shape(), DType::F64, &Device::Cpu)?,
        });
    }
    Tensor::cat(&sequences, 0)
}

/// The rows of the prefix, then those of a sequence; none where there are neither.
fn joined(prefix: Option<&Tensor>, own: &Tensor, start: usize, len: usize) -> Result<Option<Tensor>> {
    let own = if len > 0 { Some(own.narrow(0, start, len)?) } else { None };
    let parts: Vec<Tensor> = prefix.cloned().into_iter().chain(own).collect();
    if parts.is_empty() { Ok(None) } else { Tensor::cat(&parts, 0).map(Some) }
}

fn one_sequence(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool, shape: &Shape) -> Result<Tensor> {
    let part = |t: &Tensor, head: usize| t.narrow(1, head * shape.head_dim, shape.head_dim)?.contiguous();
    let (rows, keys) = (q.dim(0)?, k.dim(0)?);
    let mut heads = Vec::new();
    for head in 0..shape.heads {
        let kv = head / (shape.heads / shape.kv_heads);
        let scores = (part(q, head)?.matmul(&part(k, kv)?.t()?)? / (shape.head_dim as f64).sqrt())?;
        let scores = if causal { (scores + hidden_later(rows, keys)?)? } else { scores };
        heads.push(softmax(&scores)?.matmul(&part(v, kv)?)?);
    }
    Tensor::cat(&heads, 1)
}

/// What is added to the scores of a sequence so that no row sees a later one; keys beyond the rows are a prefix.
fn hidden_later(rows: usize, keys: usize) -> Result<Tensor> {
    let hide = |i: usize| if i % keys > i / keys + keys - rows { -1e9 } else { 0.0 };
    constant(&[rows, keys], &(0..rows * keys).map(hide).collect::<Vec<_>>())
}
