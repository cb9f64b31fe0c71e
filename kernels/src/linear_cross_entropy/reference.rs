//! All logits at once, in double precision.

use crate::gemm::reference::{matmul, transpose};

/// `softmax - one_hot` and the loss of every row.
pub(super) fn softmax(x: &[f32], w: &[f32], bias: &[f32], labels: &[u32], d: usize) -> (Vec<f64>, Vec<f64>) {
    let (n, classes) = (labels.len(), bias.len());
    let mut p = matmul(x, &transpose(w, classes, d), n, d, classes);
    let mut losses = Vec::new();
    for (row, &label) in p.chunks_exact_mut(classes).zip(labels) {
        row.iter_mut().zip(bias).for_each(|(l, b)| *l += f64::from(*b));
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + row.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
        losses.push(lse - row[label as usize]);
        row.iter_mut().for_each(|l| *l = (*l - lse).exp());
        row[label as usize] -= 1.0;
    }
    (p, losses)
}
