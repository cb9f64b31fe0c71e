//! The gated activation of the Llama family: `y = silu(gate) * up`, with `silu(g) = g / (1 + exp(-g))`.
//!
//! Elements do not touch each other; what is not finite goes the way of the formula, where the exponential of more than
//! 88 stays at `e^88`, so that a gate of minus infinity stays infinite.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use cpu::silu_in_place;

use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

const OP: &str = "swiglu";

/// Gates `up` with `silu(gate)`, element by element; of bfloat16 in f32, rounded once.
///
/// # Shapes
/// - `gate`, `up`: `[n, d]` f32 or bf16; returns the same
///
/// # Gradient
/// See [`backward`].
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Dtype`] unless both are of one of these dtypes.
///
/// # Source
/// Shazeer, "GLU Variants Improve Transformer", 2020.
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.expect_floats(OP, "gate")?;
    up.expect_like(OP, "up", gate)?;
    if let Some(on) = Stream::of(OP, &[("gate", gate), ("up", up)])? {
        return cuda::forward(&on, gate, up);
    }
    if gate.dtype() == Dtype::Bf16 {
        return Ok(forward(&gate.cast(Dtype::F32)?, &up.cast(Dtype::F32)?)?.to_bf16());
    }
    let mut y = Tensor::dirty(gate.shape());
    cpu::forward(gate.f32()?, up.f32()?, y.f32_mut()?);
    Ok(y)
}

/// The gradient of [`forward`]: returns `(dgate, dup)`.
///
/// # Shapes
/// - `dy`, `gate`, `up`: `[n, d]` f32 or bf16; returns two of the same
///
/// # Gradient
/// With `s = 1 / (1 + exp(-gate))`: `dup = dy * gate * s` and `dgate = dy * up * s * (1 + gate * (1 - s))`.
///
/// # Errors
/// As [`forward`].
pub fn backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    gate.expect_floats(OP, "gate")?;
    up.expect_like(OP, "up", gate)?;
    dy.expect_like(OP, "dy", gate)?;
    if let Some(on) = Stream::of(OP, &[("gate", gate), ("up", up), ("dy", dy)])? {
        return cuda::backward(&on, dy, gate, up);
    }
    if gate.dtype() == Dtype::Bf16 {
        let [dy, gate, up] = [dy.cast(Dtype::F32)?, gate.cast(Dtype::F32)?, up.cast(Dtype::F32)?];
        let (dgate, dup) = backward(&dy, &gate, &up)?;
        return Ok((dgate.to_bf16(), dup.to_bf16()));
    }
    let mut dgate = Tensor::dirty(gate.shape());
    let mut dup = Tensor::dirty(gate.shape());
    cpu::backward(dy.f32()?, gate.f32()?, up.f32()?, dgate.f32_mut()?, dup.f32_mut()?);
    Ok((dgate, dup))
}
