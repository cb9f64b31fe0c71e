//! Cross-entropy over many classes.

use candle_core::{D, Device, Tensor};
use mllm4rec_kernels::linear_cross_entropy::{self, Grads};

use crate::oracle::{Operand, Oracle, Outcome, noise};

#[test]
fn cross_entropy() -> Outcome {
    // 513 and 1100 classes are more than one and two tiles, 131 rows more than a block.
    for (n, classes, d) in [(1, 1, 1), (3, 7, 5), (5, 513, 33), (131, 1100, 17)] {
        let labels: Vec<u32> = (0..n).map(|i| (i * 37 % classes) as u32).collect();
        let row_scale = noise(9, n);
        let x = Operand::noise(1, &[n, d])?;
        let (w, b) = (Operand::noise(2, &[classes, d])?, Operand::noise(3, &[classes])?);
        let logits = x.theirs.matmul(&w.theirs.t()?)?.broadcast_add(&b.theirs)?;
        let dy = mllm4rec_kernels::Tensor::from_f32(&[n], row_scale.clone())?;
        let oracle = Oracle::with_dy((n, classes, d), losses(&logits, &labels)?, dy, n.max(classes))?;

        let alone = linear_cross_entropy::forward(&x.ours, &w.ours, Some(&b.ours), &labels)?;
        oracle.result(&alone)?;
        let (mut dw, mut db) = (w.ones()?, b.ones()?);
        let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
        let output =
            linear_cross_entropy::forward_backward(&x.ours, &w.ours, Some(&b.ours), &labels, &row_scale, grads)?;
        oracle.result(&output.losses)?;
        oracle.gradient("dx", &output.dx, &x)?;
        oracle.added("dw", &dw, &w)?;
        oracle.added("db", &db, &b)?;
    }
    Ok(())
}

/// `log Σ exp(logits) - logits[label]`, row by row.
fn losses(logits: &Tensor, labels: &[u32]) -> candle_core::Result<Tensor> {
    let labels = Tensor::new(labels, &Device::Cpu)?.reshape((labels.len(), 1))?;
    let top = logits.max_keepdim(D::Minus1)?.detach();
    let sum = logits.broadcast_sub(&top)?.exp()?.sum_keepdim(D::Minus1)?.log()?;
    ((sum + top)? - logits.gather(&labels, 1)?)?.squeeze(1)
}
