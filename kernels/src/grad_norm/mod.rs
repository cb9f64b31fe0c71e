//! The norm of all gradients together, and the factor that clips it.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

/// The Euclidean norm of all elements of all tensors, accumulated in double precision.
///
/// Tensors are summed in the order given, elements in a fixed tree, so the bits do not depend on threads; a device has a tree
/// of its own. One NaN or infinity among them and the norm is that.
///
/// # Errors
/// [`crate::Error::Dtype`] unless everything is f32; [`crate::Error::Place`] unless everything is in the same memory.
pub fn l2<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    find("grad_norm::l2", tensors, None)?.norm()
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

/// The norm of gradients and the factor that clips them, where the gradients are: a device goes on to the update without
/// anybody waiting for either.
#[derive(Clone, Debug)]
pub struct Clipping(Found);

#[derive(Clone, Debug)]
enum Found {
    Host {
        norm: f64,
        factor: f32,
    },
    /// The bytes of an f64, and one f32.
    Device {
        norm: Tensor,
        factor: Tensor,
    },
}

/// What gradients are multiplied with before they are used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor<'a> {
    /// A number.
    Known(f32),
    /// `[1]` f32 on a device.
    There(&'a Tensor),
}

impl Clipping {
    /// What brings gradients down to `max_norm` whose norm is known, or leaves them as they are if there is none.
    #[must_use]
    pub fn known(norm: f64, max_norm: Option<f64>) -> Self {
        Self(Found::Host { norm, factor: clip_scale(norm, max_norm.unwrap_or(f64::INFINITY)) })
    }

    /// The norm before clipping, as [`l2`] gives it. On a device this waits for it.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the device fails.
    pub fn norm(&self) -> Result<f64> {
        match &self.0 {
            Found::Host { norm, .. } => Ok(*norm),
            Found::Device { norm, .. } => cuda::read(norm),
        }
    }

    pub(crate) fn factor(&self) -> Factor<'_> {
        match &self.0 {
            Found::Host { factor, .. } => Factor::Known(*factor),
            Found::Device { factor, .. } => Factor::There(factor),
        }
    }
}

/// The norm of all gradients, and the factor that brings it down to `max_norm`, or 1 if there is none: see [`l2`] and
/// [`clip_scale`].
///
/// # Errors
/// As [`l2`].
pub fn clip<'a>(tensors: impl IntoIterator<Item = &'a Tensor>, max_norm: Option<f64>) -> Result<Clipping> {
    find("grad_norm::clip", tensors, max_norm)
}

fn find<'a>(
    op: &'static str,
    tensors: impl IntoIterator<Item = &'a Tensor>,
    max_norm: Option<f64>,
) -> Result<Clipping> {
    let places: Vec<_> = tensors.into_iter().map(|tensor| ("gradient", tensor)).collect();
    for (what, tensor) in &places {
        tensor.expect_dtype(op, what, Dtype::F32)?;
    }
    // To an infinite norm nothing is scaled.
    let max_norm = max_norm.unwrap_or(f64::INFINITY);
    if let Some(on) = Stream::of(op, &places)? {
        let [norm, factor] = cuda::clip(&on, &places, max_norm)?;
        return Ok(Clipping(Found::Device { norm, factor }));
    }
    let mut squares = 0.0;
    for (_, tensor) in places {
        squares += cpu::sum_of_squares(tensor.f32()?);
    }
    Ok(Clipping::known(squares.sqrt(), Some(max_norm)))
}
