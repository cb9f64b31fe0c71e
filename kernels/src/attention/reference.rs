//! Row by row, in double precision.

use super::{Mask, Operands, Shape};
use crate::Tensor;

/// A row of an operand.
type Row<'a> = (&'a Tensor, usize);

pub(super) fn forward(operands: &Operands, shape: &Shape) -> Vec<f64> {
    let value = |(t, row): Row, head: usize, i: usize| {
        f64::from(t.f32().expect("tests pass f32")[row * t.cols() + head * shape.head_dim + i])
    };
    let mut out = Vec::new();
    for row in 0..operands.q.rows() {
        let (keys, values) = seen(operands, row);
        for head in 0..shape.heads {
            let kv = head / shape.group();
            let score = |&key: &Row| {
                let products = (0..shape.head_dim).map(|i| value((operands.q, row), head, i) * value(key, kv, i));
                products.sum::<f64>() / (shape.head_dim as f64).sqrt()
            };
            let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..shape.head_dim).map(|i| {
                let mixed: f64 = values.iter().zip(&weights).map(|(&v, w)| w * value(v, kv, i)).sum();
                if keys.is_empty() { 0.0 } else { mixed / total }
            }));
        }
    }
    out
}

/// The keys and the values that a row sees.
fn seen<'a>(operands: &Operands<'a>, row: usize) -> (Vec<Row<'a>>, Vec<Row<'a>>) {
    let (queries, keys) = match operands.mask {
        Mask::Causal(segments) | Mask::Full(segments) => (segments, segments),
        Mask::Cross { queries, keys } => (queries, keys),
    };
    let sequence = queries.ranges().position(|range| range.contains(&row)).expect("every row is in a sequence");
    let mut own = keys.range(sequence);
    if matches!(operands.mask, Mask::Causal(_)) {
        own.end = row + 1;
    }
    let with_prefix = |prefix: Option<&'a Tensor>, tensor: &'a Tensor| {
        let prefix = prefix.into_iter().flat_map(|t| (0..t.rows()).map(move |row| (t, row)));
        prefix.chain(own.clone().map(|row| (tensor, row))).collect()
    };
    (with_prefix(operands.prefix.map(|p| p.k), operands.k), with_prefix(operands.prefix.map(|p| p.v), operands.v))
}
