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

    /// A softmax of which nothing but this log of the sum of exponentials matters any more.
    pub(super) fn known(lse: f32) -> Self {
        Self { max: lse, sum: 1.0, label_logit: f32::NEG_INFINITY }
    }

    /// Log of the sum of all exponentials.
    pub(super) fn lse(&self) -> f32 {
        self.max + self.sum.ln()
    }

    /// The cross-entropy of the label.
    pub(super) fn loss(&self) -> f32 {
        self.lse() - self.label_logit
    }

    /// Adds a part of the logits, one of which may be that of the label, and replaces them by their exponentials relative
    /// to the largest of them, which is returned.
    pub(super) fn take(&mut self, logits: &mut [f32], label: Option<usize>) -> f32 {
        let label_logit = label.and_then(|i| logits.get(i)).copied().unwrap_or(f32::NEG_INFINITY);
        let max = lanes_max(logits);
        let sum = exponentials(logits, max);
        self.merge(&Self { max, sum, label_logit });
        max
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
    fn lanes_max(logits: &[f32]) -> f32 {
        lanes::max(logits)
    }

    /// Replaces logits by `exp(logit - max)` and returns the sum.
    pub(super) fn exponentials(logits: &mut [f32], max: f32) -> f32 {
        let mut sums = [0.0f32; lanes::LANES];
        let (chunks, tail) = logits.as_chunks_mut::<{ lanes::LANES }>();
        for chunk in chunks {
            for i in 0..lanes::LANES {
                chunk[i] = lanes::exp(chunk[i] - max);
                sums[i] += chunk[i];
            }
        }
        for (sum, l) in sums.iter_mut().zip(tail) {
            *l = lanes::exp(*l - max);
            *sum += *l;
        }
        lanes::sum_tree(sums)
    }

    /// Multiplies by a factor, and adds the products to sums.
    pub(super) fn scale_and_sum(values: &mut [f32], factor: f32, sums: &mut [f32]) {
        for (value, sum) in values.iter_mut().zip(sums) {
            *value *= factor;
            *sum += *value;
        }
    }
}
