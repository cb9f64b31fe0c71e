//! The softmax of a row whose logits come in parts.

use crate::simd::{lanes, vectorised};

/// The softmax of one row, as far as it was seen: `Σ exp(logit)` is `sum · exp(max)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    max: f32,
    sum: f32,
    label_logit: f32,
}

impl Row {
    /// Nothing seen yet.
    pub(super) const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, label_logit: f32::NEG_INFINITY };

    /// Log of the sum of all exponentials.
    pub(super) fn lse(&self) -> f32 {
        self.max + self.sum.ln()
    }

    /// The cross-entropy of the label.
    pub(super) fn loss(&self) -> f32 {
        self.lse() - self.label_logit
    }

    /// Adds a part of the logits, one of which may be that of the label.
    pub(super) fn see(&mut self, logits: &[f32], label: Option<usize>) {
        let (max, sum) = max_and_sum(logits);
        let label_logit = label.and_then(|i| logits.get(i)).copied().unwrap_or(f32::NEG_INFINITY);
        self.merge(&Self { max, sum, label_logit });
    }

    /// Adds what another part of the classes contributed.
    pub(super) fn merge(&mut self, other: &Self) {
        let max = self.max.max(other.max);
        if max > f32::NEG_INFINITY {
            self.sum = self.sum * (self.max - max).exp() + other.sum * (other.max - max).exp();
        } else {
            self.sum += other.sum;
        }
        self.max = max;
        // Only one part holds the label; the others say minus infinity. What is not a number must win.
        if other.label_logit > self.label_logit || other.label_logit.is_nan() {
            self.label_logit = other.label_logit;
        }
    }
}

vectorised! {
    /// The largest logit and the sum of exponentials relative to it.
    fn max_and_sum(logits: &[f32]) -> (f32, f32) {
        let max = lanes::max(logits);
        let mut sums = [0.0f32; lanes::LANES];
        let (chunks, tail) = logits.as_chunks::<{ lanes::LANES }>();
        for chunk in chunks {
            for i in 0..lanes::LANES {
                sums[i] += lanes::exp(chunk[i] - max);
            }
        }
        for (sum, &l) in sums.iter_mut().zip(tail) {
            *sum += lanes::exp(l - max);
        }
        (max, lanes::sum_tree(sums))
    }

    /// `scale · exp(logit - lse)` in place.
    pub(super) fn exp_scaled(logits: &mut [f32], lse: f32, scale: f32) {
        for l in logits.iter_mut() {
            *l = lanes::exp(*l - lse) * scale;
        }
    }
}
