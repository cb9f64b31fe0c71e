//! Scaled dot-product attention over packed sequences, with grouped key-value heads, causal or full.
//!
//! What is not finite makes NaN in its own sequence and in no other. There it may reach earlier rows too, causal or not:
//! hidden values are weighed with 0, and 0 times NaN is NaN.

mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Segments, Tensor};

const OP: &str = "attention";

/// Heads of the operands and whether a row sees only rows up to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`, and query head `h` reads key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Whether a row sees only itself and earlier rows of its sequence.
    pub causal: bool,
}

/// What the backward pass needs: the logarithm of every softmax's denominator.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Sequence by sequence, head by head, row by row.
    log_sums: Vec<f32>,
}

/// Attention of every row over the rows of its own sequence: `softmax(q · kᵀ / sqrt(head_dim)) · v`, head by head.
///
/// The result of a sequence depends on that sequence alone, to the last bit.
///
/// # Shapes
/// - `q`: `[n, heads * head_dim]` f32
/// - `k`, `v`: `[n, kv_heads * head_dim]` f32
/// - returns `[n, heads * head_dim]` f32
///
/// # Gradient
/// See [`backward`].
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, [`Error::Setting`] if `kv_heads` does not divide `heads`;
/// [`Error::Dtype`] unless everything is f32.
///
/// # Source
/// Vaswani et al., 2017; grouped heads: Ainslie et al., 2023; only the denominators are kept, as in FlashAttention
/// (Dao et al., 2022).
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments, shape: &Shape) -> Result<(Tensor, Saved)> {
    shape.check(q, k, v, segments)?;
    let mut out = Tensor::zeros(q.shape());
    let operands = cpu::Operands { q: q.f32()?, k: k.f32()?, v: v.f32()?, segments, shape };
    let log_sums = cpu::forward(&operands, out.f32_mut()?);
    Ok((out, Saved { log_sums }))
}

/// The gradient of [`forward`]: returns `(dq, dk, dv)`.
///
/// # Shapes
/// - `d_out`, `q`, `out`: `[n, heads * head_dim]` f32
/// - `k`, `v`: `[n, kv_heads * head_dim]` f32
/// - returns three tensors shaped as `q`, `k`, `v`
///
/// # Gradient
/// With `p` the softmax (computed again from the saved denominators) and `D = sum(d_out * out)` per row and head:
/// `dv = pᵀ · d_out`, `ds = p * (d_out · vᵀ - D) / sqrt(head_dim)`, `dq = ds · k`, `dk = dsᵀ · q`; the query heads of one
/// group add up in `dk` and `dv`.
///
/// # Errors
/// As [`forward`]; [`Error::Shape`] also if the operands do not belong to one forward pass.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    d_out: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    saved: &Saved,
    segments: &Segments,
    shape: &Shape,
) -> Result<(Tensor, Tensor, Tensor)> {
    shape.check(q, k, v, segments)?;
    d_out.expect_shape(OP, "d_out", q.shape())?;
    out.expect_shape(OP, "out", q.shape())?;
    if saved.log_sums.len() != q.rows() * shape.heads {
        let expected = format!("[{}]", q.rows() * shape.heads);
        return Err(Error::shape(OP, "saved denominators", &[saved.log_sums.len()], expected));
    }
    let (mut dq, mut dk, mut dv) = (Tensor::zeros(q.shape()), Tensor::zeros(k.shape()), Tensor::zeros(v.shape()));
    let operands = cpu::Operands { q: q.f32()?, k: k.f32()?, v: v.f32()?, segments, shape };
    let results = cpu::Results { d_out: d_out.f32()?, out: out.f32()?, log_sums: &saved.log_sums };
    cpu::backward(&operands, &results, dq.f32_mut()?, dk.f32_mut()?, dv.f32_mut()?);
    Ok((dq, dk, dv))
}

impl Shape {
    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments) -> Result<()> {
        if self.kv_heads == 0 || self.head_dim == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let what = format!(
                "{} heads of {} features over {} key-value heads; the latter must divide the former",
                self.heads, self.head_dim, self.kv_heads
            );
            return Err(Error::Setting { op: OP, what });
        }
        let n = segments.rows();
        let width = |heads: usize| heads.saturating_mul(self.head_dim);
        q.expect_shape(OP, "q", &[n, width(self.heads)])?;
        k.expect_shape(OP, "k", &[n, width(self.kv_heads)])?;
        v.expect_shape(OP, "v", &[n, width(self.kv_heads)])
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}
