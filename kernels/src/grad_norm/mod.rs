//! The norm of all gradients together, and the factor that clips it.

mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::{Result, Tensor};

/// The Euclidean norm of all elements of all tensors, accumulated in double precision.
///
/// Tensors are summed in the order given, elements in a fixed tree, so the bits do not depend on threads. One NaN or
/// infinity among them and the norm is that.
///
/// # Errors
/// [`crate::Error::Dtype`] unless everything is f32.
pub fn l2<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let mut squares = 0.0;
    for tensor in tensors {
        tensor.expect_f32("grad_norm::l2", "gradient")?;
        squares += cpu::sum_of_squares(tensor.f32()?);
    }
    Ok(squares.sqrt())
}

/// The factor that brings gradients of norm `norm` down to `max_norm`, at most 1.
///
/// It is 1 for a norm that is NaN and 0 for an infinite one. The gradients that caused it make NaN of their parameters
/// either way: who does not want that looks at the norm.
///
/// # Source
/// PyTorch's `clip_grad_norm_`, with its 1e-6 beside the norm.
#[must_use]
pub fn clip_scale(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}
