//! Layer normalisation.
//!
//! A row that holds something not finite comes out as NaN, from the backward pass too, and no other row does; weight and
//! bias reach their column, and all of `dx`. A negative `eps` may make roots of negative numbers: NaN too.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

/// What the backward needs beside the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The mean of every row: `[n]` f32.
    mean: Tensor,
    /// One over the standard deviation of every row: `[n]` f32.
    inverse_deviation: Tensor,
}

/// Normalises every row to mean 0 and variance 1, then scales and shifts: `y = (x - mean) / √(var + eps) · w + b`.
///
/// # Shapes
/// - `x`: `[n, D]` f32
/// - `weight`, `bias`: `[D]` f32
/// - returns `[n, D]` f32
///
/// # Gradient
/// [`backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if weight or bias are not `[D]`; [`Error::Dtype`](crate::Error::Dtype) unless
/// everything is f32.
///
/// # Source
/// Ba, Kiros and Hinton, 2016; the variance is that of the population, as in PyTorch.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<(Tensor, Saved)> {
    const OP: &str = "layer_norm::forward";
    if let Some(on) = check(OP, x, weight, bias)? {
        return cuda::forward(&on, x, weight, bias, eps);
    }
    let mut y = Tensor::dirty(x.shape());
    let [mut mean, mut inverse_deviation] = [(); 2].map(|()| Tensor::dirty(&[x.rows()]));
    let statistics = [mean.f32_mut()?, inverse_deviation.f32_mut()?];
    cpu::forward(x.f32()?, weight.f32()?, bias.f32()?, eps, y.f32_mut()?, statistics);
    Ok((y, Saved { mean, inverse_deviation }))
}

/// [`forward`] with a result that is rounded to bfloat16: for what only products of bfloat16 read.
///
/// # Shapes
/// - `x`, `weight`, `bias`: as there
/// - returns `[n, D]` bf16
///
/// # Gradient
/// None: training keeps to [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn forward_rounded(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    const OP: &str = "layer_norm::forward_rounded";
    if let Some(on) = check(OP, x, weight, bias)? {
        return cuda::forward_rounded(&on, x, weight, bias, eps);
    }
    let (x_values, w, b) = (x.f32()?, weight.f32()?, bias.f32()?);
    Ok(Tensor::bf16_of(x.shape(), |y| cpu::forward_rounded(x_values, w, b, eps, y)))
}

/// Adds to the residual stream and normalises it: `x += y`, then [`forward`] of `x`. On a device it is one pass over memory.
///
/// # Shapes
/// - `x`: `[n, D]` f32, added to
/// - `y`: `[n, D]` f32
/// - `weight`, `bias`: `[D]` f32
/// - returns `[n, D]` f32
///
/// # Gradient
/// [`backward`] with the `x` that this leaves, and what it returns reaches the former `x` and `y` alike.
///
/// # Errors
/// As [`forward`], and [`Error::Shape`](crate::Error::Shape) if `y` is not like `x`. Then `x` stays as it was.
pub fn add_then_forward(
    x: &mut Tensor,
    y: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<(Tensor, Saved)> {
    const OP: &str = "layer_norm::add_then_forward";
    x.expect_dtype(OP, "x", Dtype::F32)?;
    y.expect_shape(OP, "y", x.shape())?;
    weight.expect_shape(OP, "weight", &[x.cols()])?;
    bias.expect_shape(OP, "bias", &[x.cols()])?;
    if let Some(on) = Stream::of(OP, &[("x", x), ("y", y), ("weight", weight), ("bias", bias)])? {
        return cuda::add_then_forward(&on, x, y, weight, bias, eps);
    }
    x.add(y)?;
    forward(x, weight, bias, eps)
}

/// The gradient of [`forward`]: returns `dx`, adds to `d_weight` and `d_bias`.
///
/// # Shapes
/// - `dy`, `x`: `[n, D]` f32
/// - `weight`: `[D]` f32
/// - `d_weight`, `d_bias`: `[D]` f32, added to
/// - returns `[n, D]` f32
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the operands do not fit; [`Error::Dtype`](crate::Error::Dtype) unless
/// everything is f32.
pub fn backward(
    dy: &Tensor,
    x: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    d_weight: &mut Tensor,
    d_bias: &mut Tensor,
) -> Result<Tensor> {
    const OP: &str = "layer_norm::backward";
    let d = x.cols();
    x.expect_dtype(OP, "x", Dtype::F32)?;
    dy.expect_shape(OP, "dy", x.shape())?;
    weight.expect_shape(OP, "weight", &[d])?;
    d_weight.expect_shape(OP, "d_weight", &[d])?;
    d_bias.expect_shape(OP, "d_bias", &[d])?;
    saved.mean.expect_shape(OP, "saved", &[x.rows()])?;
    let sums = [("d_weight", &*d_weight), ("d_bias", &*d_bias)];
    let places = [("x", x), ("dy", dy), ("weight", weight), ("saved", &saved.mean), sums[0], sums[1]];
    if let Some(on) = Stream::of(OP, &places)? {
        return cuda::backward(&on, dy, x, saved, weight, [d_weight, d_bias]);
    }
    let mut dx = Tensor::dirty(x.shape());
    let statistics = [saved.mean.f32()?, saved.inverse_deviation.f32()?];
    let rows = cpu::Rows { dy: dy.f32()?, x: x.f32()?, statistics, weight: weight.f32()? };
    cpu::backward(&rows, dx.f32_mut()?, d_weight.f32_mut()?, d_bias.f32_mut()?);
    Ok(dx)
}

/// Checks the operands of a forward, and says on which device they are.
fn check(op: &'static str, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Option<Stream>> {
    x.expect_dtype(op, "x", Dtype::F32)?;
    weight.expect_shape(op, "weight", &[x.cols()])?;
    bias.expect_shape(op, "bias", &[x.cols()])?;
    Stream::of(op, &[("x", x), ("weight", weight), ("bias", bias)])
}
