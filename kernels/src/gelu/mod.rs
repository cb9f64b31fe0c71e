//! The exact GELU activation.
//!
//! NaN stays NaN; minus infinity gives NaN, as the product of infinity and 0 does.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use cpu::in_place;

use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

/// Applies `x · Φ(x)`, with the normal distribution function `Φ` by way of erf, element by element.
///
/// # Shapes
/// Any; returns the shape of `x`, f32.
///
/// # Gradient
/// [`backward`].
///
/// # Errors
/// [`crate::Error::Dtype`] unless `x` is f32.
///
/// # Source
/// Hendrycks and Gimpel, 2016.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "gelu::forward";
    x.expect_dtype(OP, "x", Dtype::F32)?;
    if let Some(on) = Stream::of(OP, &[("x", x)])? {
        return cuda::forward(&on, x);
    }
    let mut y = Tensor::dirty(x.shape());
    cpu::forward(x.f32()?, y.f32_mut()?);
    Ok(y)
}

/// The gradient of [`forward`]: `dx = dy · (Φ(x) + x · φ(x))`.
///
/// # Shapes
/// `dy` and the input `x` of the forward have one shape; so has the result.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Dtype`] unless both are f32.
pub fn backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    const OP: &str = "gelu::backward";
    x.expect_dtype(OP, "x", Dtype::F32)?;
    dy.expect_shape(OP, "dy", x.shape())?;
    if let Some(on) = Stream::of(OP, &[("x", x), ("dy", dy)])? {
        return cuda::backward(&on, dy, x);
    }
    let mut dx = Tensor::dirty(x.shape());
    cpu::backward(dy.f32()?, x.f32()?, dx.f32_mut()?);
    Ok(dx)
}
