//! Scaled dot-product attention over packed sequences, with grouped key-value heads: causal, full, or across to the keys
//! of other sequences, each with or without a prefix that all sequences share.
//!
//! What is not finite makes NaN in its own sequence and in no other. There it may reach earlier rows too, causal or not:
//! hidden values are weighed with 0, and 0 times NaN is NaN.
//!
//! On a device softmax is corrected from tile to tile of keys instead of computed over all of them, so its bits are others
//! than the host's; what is said of bits holds there too. Heads have up to 256 features there, or are refused with
//! [`Error::Setting`].

mod bf16;
mod cache;
mod cpu;
mod cuda;
mod layout;
mod operands;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};
pub use bf16::{backward_bf16, forward_bf16, forward_bf16_saved};
pub use cache::{Cache, step};
use layout::Layout;
pub use operands::{Mask, Operands, Prefix, Shape};

const OP: &str = "attention";

/// What the backward pass needs: the logarithm of every softmax's denominator, and to which pass it belongs.
#[derive(Clone, Debug)]
pub struct Saved {
    log_sums: Tensor, // [n, heads] f32
    layout: Layout,
}

/// Where a backward pass adds the gradient of the prefix.
#[derive(Debug)]
pub struct PrefixGradient<'a> {
    /// `[p, kv_heads * head_dim]` f32, added to.
    pub dk: &'a mut Tensor,
    /// `[p, kv_heads * head_dim]` f32, added to.
    pub dv: &'a mut Tensor,
}

/// Attention of every row over the keys that it sees: `softmax(q · kᵀ / sqrt(head_dim)) · v`, head by head.
///
/// The result of a sequence depends on that sequence and the prefix alone, to the last bit; it is the same whether the
/// prefix is shared or written before the keys of every sequence. A row that sees no key gives zeros.
///
/// What is not a number stays inside of its sequence and of the heads that read it, but there it may also reach rows that
/// do not see it. In the prefix it reaches all sequences.
///
/// # Shapes
/// - `operands.q`: `[n, heads * head_dim]` f32
/// - `operands.k`, `operands.v`: `[m, kv_heads * head_dim]` f32; `m` is `n` except under [`Mask::Cross`]
/// - `operands.prefix`: keys and values `[p, kv_heads * head_dim]` f32
/// - returns `[n, heads * head_dim]` f32
///
/// # Gradient
/// See [`backward`].
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit; [`Error::Dtype`] unless they are f32; [`Error::Setting`] if `kv_heads`
/// does not divide `heads`, if there are no heads or no features, or if queries and keys are not as many sequences.
///
/// # Source
/// Vaswani et al., 2017; grouped heads: Ainslie et al., 2023; only the denominators are kept, as in FlashAttention
/// (Dao et al., 2022).
pub fn forward(operands: &Operands<'_>, shape: &Shape) -> Result<(Tensor, Saved)> {
    let layout = operands.check(shape, Dtype::F32)?;
    if let Some(on) = operands.place(&[])? {
        let (out, log_sums) = cuda::forward(&on, operands, &layout)?;
        return Ok((out, Saved { log_sums, layout }));
    }
    let checked = operands.on_host(layout)?;
    let mut out = Tensor::zeros(operands.q.shape());
    let log_sums = cpu::forward(&checked, out.f32_mut()?);
    let log_sums = Tensor::from_f32(&[out.rows(), shape.heads], log_sums)?;
    Ok((out, Saved { log_sums, layout: checked.layout }))
}

/// The gradient of [`forward`]: returns `(dq, dk, dv)`, and adds that of the prefix to `d_prefix` if asked for.
///
/// The gradients of a sequence depend on that sequence and the prefix alone; they too are the same whether the prefix is
/// shared or repeated. That of the prefix is the sum over the sequences, in an order that depends on their number alone.
///
/// # Shapes
/// - `d_out`, `out`: `[n, heads * head_dim]` f32
/// - `operands`: those of the forward
/// - `d_prefix`: two tensors shaped as the keys of the prefix
/// - returns three tensors shaped as `q`, `k`, `v`
///
/// # Gradient
/// With `p` the softmax (computed again from the saved denominators) and `D = sum(d_out * out)` per row and head:
/// `dv = pᵀ · d_out`, `ds = p * (d_out · vᵀ - D) / sqrt(head_dim)`, `dq = ds · k`, `dk = dsᵀ · q`; the query heads of one
/// group add up in `dk` and `dv`. Rows that see no key, and keys that no row sees, receive zeros.
///
/// # Errors
/// Those of [`forward`]; [`Error::Shape`] and [`Error::Dtype`] also for the gradients; [`Error::Setting`] if `saved` is of
/// a pass with other shapes, and if the gradient of a prefix is asked for where there is none.
pub fn backward(
    d_out: &Tensor,
    operands: &Operands<'_>,
    out: &Tensor,
    saved: &Saved,
    shape: &Shape,
    d_prefix: Option<PrefixGradient<'_>>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let layout = saved.check(operands, shape, [d_out, out], Dtype::F32)?;
    let d_prefix = d_prefix.map(|gradient| gradient.check(operands.prefix)).transpose()?;
    if let Some(on) = saved.place(operands, [d_out, out], d_prefix.as_ref())? {
        let results = cuda::Results { d_out, out, log_sums: &saved.log_sums };
        return Ok(cuda::backward(&on, operands, &layout, &results, d_prefix)?.into());
    }
    let checked = operands.on_host(layout)?;
    let results = cpu::Results { d_out: d_out.f32()?, out: out.f32()?, log_sums: saved.log_sums.f32()? };
    let [mut dq, mut dk, mut dv] = [operands.q, operands.k, operands.v].map(|t| Tensor::zeros(t.shape()));
    let d_prefix = d_prefix.map(|[dk, dv]| Ok([dk.f32_mut()?, dv.f32_mut()?])).transpose()?;
    cpu::backward(&checked, &results, [dq.f32_mut()?, dk.f32_mut()?, dv.f32_mut()?], d_prefix);
    Ok((dq, dk, dv))
}

impl Saved {
    /// Checks what a backward pass is given: the operands, the gradient of the result and the result.
    fn check(
        &self,
        operands: &Operands<'_>,
        shape: &Shape,
        [d_out, out]: [&Tensor; 2],
        dtype: Dtype,
    ) -> Result<Layout> {
        let layout = operands.check(shape, dtype)?;
        if self.layout != layout {
            let what = "the saved state is of a pass with other heads, mask, segments or prefix".to_owned();
            return Err(Error::Setting { op: OP, what });
        }
        for (tensor, what) in [(d_out, "d_out"), (out, "out")] {
            tensor.expect_dims(OP, what, operands.q.shape())?;
            tensor.expect_dtype(OP, what, dtype)?;
        }
        Ok(layout)
    }

    /// The device on which all that is; none if it is the host's.
    fn place(
        &self,
        operands: &Operands<'_>,
        [d_out, out]: [&Tensor; 2],
        d_prefix: Option<&[&mut Tensor; 2]>,
    ) -> Result<Option<Stream>> {
        let mut others = vec![("d_out", d_out), ("out", out), ("saved", &self.log_sums)];
        if let Some([dk, dv]) = d_prefix {
            others.extend([("prefix dk", &**dk), ("prefix dv", &**dv)]);
        }
        operands.place(&others)
    }
}

impl<'a> PrefixGradient<'a> {
    fn check(self, prefix: Option<Prefix<'_>>) -> Result<[&'a mut Tensor; 2]> {
        let Some(prefix) = prefix else {
            let what = "the gradient of a prefix is asked for, but there is no prefix".to_owned();
            return Err(Error::Setting { op: OP, what });
        };
        self.dk.expect_shape(OP, "prefix dk", prefix.k.shape())?;
        self.dv.expect_shape(OP, "prefix dv", prefix.v.shape())?;
        Ok([self.dk, self.dv])
    }
}
