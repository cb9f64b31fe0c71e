//! Root-mean-square normalisation with a gain: `y = w * x / sqrt(mean(x^2) + eps)`, row by row.
//!
//! What is not finite in a row makes NaN in that row and in no other, in the gain in its column and in all of `dx`.

mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor};

const OP: &str = "rms_norm";

/// What the backward pass needs besides the input: `1 / sqrt(mean(x^2) + eps)` of every row.
#[derive(Clone, Debug)]
pub struct Saved {
    scale: Vec<f32>,
}

/// Normalises every row of `x` and multiplies by the gain.
///
/// # Shapes
/// - `x`: `[n, d]` f32
/// - `w`: `[d]` f32
/// - returns `[n, d]` f32
///
/// # Gradient
/// See [`backward`].
///
/// # Errors
/// [`Error::Shape`] if `w` has not one gain per column; [`Error::Dtype`] unless everything is f32.
///
/// # Source
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, as the Llama family uses it.
pub fn forward(x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    x.expect_f32(OP, "x")?;
    w.expect_shape(OP, "w", &[x.cols()])?;
    let mut y = Tensor::dirty(x.shape());
    let mut scale = vec![0.0; x.rows()];
    cpu::forward(x.f32()?, w.f32()?, eps, y.f32_mut()?, &mut scale);
    Ok((y, Saved { scale }))
}

/// The gradient of [`forward`].
///
/// # Shapes
/// - `dy`, `x`: `[n, d]` f32
/// - `w`, `dw`: `[d]` f32; `dw` is added to, and left out when the gain is frozen
/// - returns `dx`, `[n, d]` f32
///
/// # Gradient
/// With `s = 1 / sqrt(mean(x^2) + eps)`: `dx = s * w * dy - x * s^3 * mean(w * dy * x)` and `dw = sum over rows of dy * x * s`.
///
/// # Errors
/// [`Error::Shape`] if the operands do not belong to one forward pass; [`Error::Dtype`] unless everything is f32.
pub fn backward(dy: &Tensor, x: &Tensor, saved: &Saved, w: &Tensor, dw: Option<&mut Tensor>) -> Result<Tensor> {
    x.expect_f32(OP, "x")?;
    dy.expect_shape(OP, "dy", x.shape())?;
    w.expect_shape(OP, "w", &[x.cols()])?;
    if saved.scale.len() != x.rows() {
        return Err(Error::shape(OP, "saved scales", &[saved.scale.len()], format!("[{}]", x.rows())));
    }
    let mut dx = Tensor::dirty(x.shape());
    cpu::backward_input(dy.f32()?, x.f32()?, &saved.scale, w.f32()?, dx.f32_mut()?);
    if let Some(dw) = dw {
        dw.expect_shape(OP, "dw", &[x.cols()])?;
        cpu::backward_gain(dy.f32()?, x.f32()?, &saved.scale, dw.f32_mut()?);
    }
    Ok(dx)
}
