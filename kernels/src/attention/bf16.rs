//! Attention of queries, keys and values in bfloat16.

use super::cuda;
use super::{Operands, PrefixGradient, Saved, Shape, backward, cpu, forward};
use crate::{Dtype, Result, Tensor};

/// As [`forward`], of queries, keys and values in bfloat16; the weights are rounded to that too. Products are summed in
/// f32. About half the time where the processor has such products.
///
/// # Shapes
/// Those of [`forward`]; operands and result are bf16.
///
/// # Gradient
/// That of [`forward_bf16_saved`], whose result is the same.
///
/// # Errors
/// Those of [`forward`]; [`Error::Dtype`](crate::Error::Dtype) unless the operands are bf16.
///
/// # Source
/// Those of [`forward`]; the places of rounding are those of FlashAttention's kernels.
pub fn forward_bf16(operands: &Operands<'_>, shape: &Shape) -> Result<Tensor> {
    let layout = operands.check(shape, Dtype::Bf16)?;
    if let Some(on) = operands.place(&[])? {
        return cuda::forward_bf16(&on, operands, &layout);
    }
    let checked = operands.on_host(layout)?;
    Ok(Tensor::bf16_of(operands.q.shape(), |out| cpu::forward_bf16(&checked, out)))
}

/// [`forward_bf16`], and what its backward pass needs. On the host that is computed by [`forward`], and takes as long.
///
/// # Shapes
/// Those of [`forward_bf16`].
///
/// # Gradient
/// [`backward_bf16`].
///
/// # Errors
/// Those of [`forward_bf16`].
pub fn forward_bf16_saved(operands: &Operands<'_>, shape: &Shape) -> Result<(Tensor, Saved)> {
    let layout = operands.check(shape, Dtype::Bf16)?;
    if let Some(on) = operands.place(&[])? {
        let (out, log_sums) = cuda::forward_bf16_saved(&on, operands, &layout)?;
        return Ok((out, Saved { log_sums, layout }));
    }
    let (_, saved) = widened(operands, |operands| forward(operands, shape))?;
    Ok((forward_bf16(operands, shape)?, saved))
}

/// The gradient of [`forward_bf16`], as [`backward`] computes it of the same numbers in f32, rounded: returns `(dq, dk,
/// dv)`, and adds that of the prefix to `d_prefix` if asked for.
///
/// On a device the weights and the gradients of the scores are rounded too. There the bits of `dk` and `dv` depend on
/// whether a prefix is shared or repeated, those of `dq` do not.
///
/// # Shapes
/// Those of [`backward`]; `d_out`, `out`, the operands and the results are bf16, `d_prefix` is f32.
///
/// # Gradient
/// That of [`backward`].
///
/// # Errors
/// Those of [`backward`]; [`Error::Dtype`](crate::Error::Dtype) for other dtypes.
///
/// # Source
/// Dao, "FlashAttention-2", 2023.
pub fn backward_bf16(
    d_out: &Tensor,
    operands: &Operands<'_>,
    out: &Tensor,
    saved: &Saved,
    shape: &Shape,
    d_prefix: Option<PrefixGradient<'_>>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let layout = saved.check(operands, shape, [d_out, out], Dtype::Bf16)?;
    let mut d_prefix = d_prefix.map(|gradient| gradient.check(operands.prefix)).transpose()?;
    if let Some(on) = saved.place(operands, [d_out, out], d_prefix.as_ref())? {
        let results = cuda::Results { d_out, out, log_sums: &saved.log_sums };
        return Ok(cuda::backward(&on, operands, &layout, &results, d_prefix)?.into());
    }
    let d_prefix = d_prefix.as_mut().map(|[dk, dv]| PrefixGradient { dk, dv });
    let (d_out, out) = (wide(d_out)?, wide(out)?);
    let (dq, dk, dv) = widened(operands, |operands| backward(&d_out, operands, &out, saved, shape, d_prefix))?;
    Ok((dq.to_bf16(), dk.to_bf16(), dv.to_bf16()))
}

/// What some work makes of the same operands in f32.
fn widened<T>(operands: &Operands<'_>, work: impl FnOnce(&Operands<'_>) -> Result<T>) -> Result<T> {
    let [q, k, v] = [wide(operands.q)?, wide(operands.k)?, wide(operands.v)?];
    let prefix = operands.prefix.map(|prefix| Ok([wide(prefix.k)?, wide(prefix.v)?])).transpose()?;
    let all = Operands::new(&q, &k, &v, operands.mask);
    work(&prefix.as_ref().map_or(all, |[k, v]| all.with_prefix(k, v)))
}

fn wide(tensor: &Tensor) -> Result<Tensor> {
    Tensor::from_f32(tensor.shape(), tensor.to_f32())
}
