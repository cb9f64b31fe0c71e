//! Row by row, in double precision.

use super::Shape;
use crate::{Segments, Tensor};

pub(super) fn forward(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments, shape: &Shape) -> Vec<f64> {
    let value = |t: &Tensor, row: usize, head: usize, i: usize| {
        f64::from(t.f32().expect("tests pass f32")[row * t.cols() + head * shape.head_dim + i])
    };
    let mut out = vec![0.0; q.len()];
    for range in segments.ranges() {
        for row in range.clone() {
            let seen: Vec<usize> =
                if shape.causal { (range.start..row + 1).collect() } else { range.clone().collect() };
            for head in 0..shape.heads {
                let kv = head / shape.group();
                let score = |j: usize| {
                    let product: f64 = (0..shape.head_dim).map(|i| value(q, row, head, i) * value(k, j, kv, i)).sum();
                    product / (shape.head_dim as f64).sqrt()
                };
                let weights: Vec<f64> = seen.iter().map(|&j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..shape.head_dim {
                    let mixed: f64 = seen.iter().zip(&weights).map(|(&j, w)| w * value(v, j, kv, i)).sum();
                    out[row * q.cols() + head * shape.head_dim + i] = mixed / total;
                }
            }
        }
    }
    out
}
