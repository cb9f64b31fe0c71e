//! A low-rank update beside a linear layer: `y += scale · (x · Aᵀ) · Bᵀ`.

#[cfg(test)]
mod tests;

use crate::simd::{add_scaled, scale as scale_by};
use crate::{Result, Tensor, gemm};

/// Adds the low-rank update to `y` and returns `x · Aᵀ` for the backward pass.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32, after dropout where there is any
/// - `a`: `[rank, d_in]` f32
/// - `b`: `[d_out, rank]` f32
/// - `y`: `[n, d_out]` f32, added to
/// - returns `[n, rank]` f32
///
/// # Gradient
/// See [`backward`].
///
/// # Errors
/// [`crate::Error::Shape`] if the dimensions do not fit.
///
/// # Source
/// Hu et al., "LoRA", 2021; scale = alpha / rank.
pub fn forward(x: &Tensor, a: &Tensor, b: &Tensor, scale: f32, y: &mut Tensor) -> Result<Tensor> {
    y.expect_shape("lora", "y", &[x.rows(), b.rows()])?;
    let inner = gemm::linear(x, a, None)?; // [n, rank]
    let update = gemm::linear(&inner, b, None)?; // [n, d_out]
    add_scaled(update.f32()?, scale, y.f32_mut()?);
    Ok(inner)
}

/// The gradient of [`forward`].
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32
/// - `x`: `[n, d_in]` f32, as in the forward pass
/// - `inner`: `[n, rank]` f32, what the forward pass returned
/// - `da`, `db`: as `a` and `b`, added to
/// - returns the part of `dx` that comes through the update, `[n, d_in]` f32
///
/// # Gradient
/// `db += scale · dyᵀ · inner`; with `d = scale · dy · B`: `da += dᵀ · x` and `dx = d · A`.
///
/// # Errors
/// [`crate::Error::Shape`] if the dimensions do not fit.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    dy: &Tensor,
    x: &Tensor,
    inner: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scale: f32,
    da: &mut Tensor,
    db: &mut Tensor,
) -> Result<Tensor> {
    let mut scaled = inner.clone();
    scale_by(scale, scaled.f32_mut()?);
    gemm::linear_backward_weight(dy, &scaled, db, None)?;
    let mut d_inner = gemm::linear_backward_input(dy, b)?; // [n, rank]
    scale_by(scale, d_inner.f32_mut()?);
    gemm::linear_backward_weight(&d_inner, x, da, None)?;
    gemm::linear_backward_input(&d_inner, a)
}
