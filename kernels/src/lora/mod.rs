//! A low-rank update beside a linear layer: `y += scale · (x · Aᵀ) · Bᵀ`.
//!
//! [`linear`] is the layer together with its update, which on a device is part of the layer's own sums where a kernel of ours
//! makes them, and else comes before them ([decision 8](../../../docs/decisions/0008-where-a-low-rank-update-is-summed.md)).
//! [`forward`] and [`backward`] are the update alone, beside a result that is there already.
//!
//! What is not finite in a row of `x` or of `dy` reaches that row of the result; in `a`, `b` or `scale`, all rows.

mod base;
mod cuda;
mod linear;
#[cfg(test)]
mod tests;

pub use base::Base;
pub use linear::{Dropout, Update, backward_factors, linear, linear_backward_input};

use crate::{Dtype, Result, Tensor, gemm};

const OP: &str = "lora";

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
/// [`crate::Error::Shape`] if the dimensions do not fit; [`crate::Error::Dtype`] unless everything is f32.
///
/// # Source
/// Hu et al., "LoRA", 2021; scale = alpha / rank.
pub fn forward(x: &Tensor, a: &Tensor, b: &Tensor, scale: f32, y: &mut Tensor) -> Result<Tensor> {
    check(x, a, b)?;
    y.expect_shape(OP, "y", &[x.rows(), b.rows()])?;
    let inner = gemm::linear(x, a, None)?; // [n, rank]
    gemm::add_linear(scale, &inner, b, y)?;
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
/// As [`forward`].
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
    check(x, a, b)?;
    dy.expect_shape(OP, "dy", &[x.rows(), b.rows()])?;
    inner.expect_shape(OP, "inner", &[x.rows(), a.rows()])?;
    da.expect_shape(OP, "da", a.shape())?;
    db.expect_shape(OP, "db", b.shape())?;
    let d_inner = factors(dy, x, inner, b, scale, [da, db])?;
    gemm::linear_backward_input(&d_inner, a)
}

/// Adds the gradients of both factors, of checked operands in f32; returns that of `x · Aᵀ`, `[n, rank]`.
fn factors(dy: &Tensor, x: &Tensor, inner: &Tensor, b: &Tensor, scale: f32, sums: [&mut Tensor; 2]) -> Result<Tensor> {
    let [da, db] = sums;
    gemm::add_weight_gradient(scale, dy, inner, db)?;
    let d_inner = gemm::scaled_backward_input(scale, dy, b)?;
    gemm::linear_backward_weight(&d_inner, x, da, None)?;
    Ok(d_inner)
}

fn check(x: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    x.expect_dtype(OP, "x", Dtype::F32)?;
    a.expect_shape(OP, "a", &[a.rows(), x.cols()])?;
    b.expect_shape(OP, "b", &[b.rows(), a.rows()])
}
