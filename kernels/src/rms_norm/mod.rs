//! Root-mean-square normalisation with a gain: `y = w * x / sqrt(mean(x^2) + eps)`, row by row.
//!
//! What is not finite in a row makes NaN in that row and in no other, in the gain in its column and in all of `dx`.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

const OP: &str = "rms_norm";

/// What the backward pass needs besides the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// `1 / sqrt(mean(x^2) + eps)` of every row: `[n]` f32.
    scale: Tensor,
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
/// [`Error::Shape`](crate::Error::Shape) if `w` has not one gain per column; [`Error::Dtype`](crate::Error::Dtype) unless
/// everything is f32.
///
/// # Source
/// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, as the Llama family uses it.
pub fn forward(x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    if let Some(on) = check(x, w)? {
        return cuda::forward(&on, x, w, eps, Dtype::F32);
    }
    let mut y = Tensor::dirty(x.shape());
    let mut scale = Tensor::zeros(&[x.rows()]);
    cpu::forward(x.f32()?, w.f32()?, eps, y.f32_mut()?, scale.f32_mut()?);
    Ok((y, Saved { scale }))
}

/// [`forward`] with a result that is rounded to bfloat16: for what only products of bfloat16 read.
///
/// # Shapes
/// - `x`: `[n, d]` f32
/// - `w`: `[d]` f32
/// - returns `[n, d]` bf16
///
/// # Gradient
/// [`backward`], as if nothing had been rounded.
///
/// # Errors
/// As [`forward`].
pub fn forward_rounded(x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    if let Some(on) = check(x, w)? {
        return cuda::forward(&on, x, w, eps, Dtype::Bf16);
    }
    let (y, saved) = forward(x, w, eps)?;
    Ok((y.to_bf16(), saved))
}

fn check(x: &Tensor, w: &Tensor) -> Result<Option<Stream>> {
    x.expect_dtype(OP, "x", Dtype::F32)?;
    w.expect_shape(OP, "w", &[x.cols()])?;
    Stream::of(OP, &[("x", x), ("w", w)])
}

/// Adds to the residual stream and normalises it: `x += y`, then [`forward`] of `x`. On a device it is one pass over memory.
///
/// # Shapes
/// - `x`: `[n, d]` f32, added to
/// - `y`: `[n, d]` f32
/// - `w`: `[d]` f32
/// - returns `[n, d]` f32
///
/// # Gradient
/// [`backward`] with the `x` that this leaves, and what it returns reaches the former `x` and `y` alike.
///
/// # Errors
/// As [`forward`], and [`Error::Shape`](crate::Error::Shape) if `y` is not like `x`. Then `x` stays as it was.
pub fn add_then_forward(x: &mut Tensor, y: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    if let Some(on) = check_sum(x, y, w)? {
        return cuda::add_then_forward(&on, x, y, w, eps, Dtype::F32);
    }
    x.add(y)?;
    forward(x, w, eps)
}

/// [`add_then_forward`] whose result is rounded as that of [`forward_rounded`]; the residual stream stays f32.
///
/// # Shapes
/// As [`add_then_forward`], and the result is bf16.
///
/// # Gradient
/// That of [`add_then_forward`].
///
/// # Errors
/// As [`add_then_forward`].
pub fn add_then_forward_rounded(x: &mut Tensor, y: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    if let Some(on) = check_sum(x, y, w)? {
        return cuda::add_then_forward(&on, x, y, w, eps, Dtype::Bf16);
    }
    x.add(y)?;
    forward_rounded(x, w, eps)
}

fn check_sum(x: &Tensor, y: &Tensor, w: &Tensor) -> Result<Option<Stream>> {
    x.expect_dtype(OP, "x", Dtype::F32)?;
    y.expect_shape(OP, "y", x.shape())?;
    w.expect_shape(OP, "w", &[x.cols()])?;
    Stream::of(OP, &[("x", x), ("y", y), ("w", w)])
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
/// [`Error::Shape`](crate::Error::Shape) if the operands do not belong to one forward pass;
/// [`Error::Dtype`](crate::Error::Dtype) unless everything is f32.
pub fn backward(dy: &Tensor, x: &Tensor, saved: &Saved, w: &Tensor, dw: Option<&mut Tensor>) -> Result<Tensor> {
    x.expect_dtype(OP, "x", Dtype::F32)?;
    dy.expect_shape(OP, "dy", x.shape())?;
    w.expect_shape(OP, "w", &[x.cols()])?;
    saved.scale.expect_shape(OP, "saved scales", &[x.rows()])?;
    let mut places = vec![("x", x), ("dy", dy), ("w", w), ("saved scales", &saved.scale)];
    if let Some(dw) = dw.as_deref() {
        dw.expect_shape(OP, "dw", &[x.cols()])?;
        places.push(("dw", dw));
    }
    if let Some(on) = Stream::of(OP, &places)? {
        return cuda::backward(&on, dy, x, saved, w, dw);
    }
    let mut dx = Tensor::dirty(x.shape());
    let scale = saved.scale.f32()?;
    cpu::backward_input(dy.f32()?, x.f32()?, scale, w.f32()?, dx.f32_mut()?);
    if let Some(dw) = dw {
        cpu::backward_gain(dy.f32()?, x.f32()?, scale, dw.f32_mut()?);
    }
    Ok(dx)
}
