//! The linear layer over packed sequences: the bits of a row depend on that row and on the weight, never on the rows
//! beside it.
//!
//! A matrix product may add in another order when it has other dimensions, so a prompt could score differently in other
//! company. Here every product has the same number of rows: the input is cut into blocks of [`BLOCK_ROWS`] and the last
//! one is filled up with zeros.

pub(crate) mod cpu;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor};

/// Rows of every product.
pub const BLOCK_ROWS: usize = 128;

/// Applies a linear layer: `y = x · Wᵀ + b`, row by row independent of the other rows.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32
/// - `weight`: `[d_out, d_in]` f32
/// - `bias`: `[d_out]` f32
/// - returns `[n, d_out]` f32
///
/// # Gradient
/// [`backward_input`] for `x`, [`crate::gemm::linear_backward_weight`] for weight and bias.
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, d_in) = dimensions(x, "x")?;
    let (d_out, w_in) = dimensions(weight, "weight")?;
    if w_in != d_in {
        return Err(Error::shape("packed_linear", "weight", weight.shape(), format!("[d_out, {d_in}]")));
    }
    let mut y = Tensor::zeros(&[n, d_out]);
    cpu::product(x.f32()?, cpu::Weight { values: weight.f32()?, d_out, d_in, transposed: true }, y.f32_mut()?);
    if let Some(bias) = bias {
        add_bias(&mut y, bias)?;
    }
    Ok(y)
}

/// Adds a bias to every row of `y`.
///
/// # Shapes
/// - `y`: `[n, d_out]` f32, `bias`: `[d_out]` f32
///
/// # Gradient
/// That of `y` itself; the bias receives the sum over the rows.
///
/// # Errors
/// [`Error::Shape`] if the widths differ.
pub fn add_bias(y: &mut Tensor, bias: &Tensor) -> Result<()> {
    bias.expect_shape("packed_linear", "bias", &[y.cols()])?;
    cpu::add_to_rows(bias.f32()?, y.f32_mut()?);
    Ok(())
}

/// The gradient of [`forward`] with respect to its input: `dx = dy · W`, row by row independent of the other rows.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32
/// - `weight`: `[d_out, d_in]` f32
/// - returns `[n, d_in]` f32
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ.
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (n, d_out) = dimensions(dy, "dy")?;
    let (w_out, d_in) = dimensions(weight, "weight")?;
    if w_out != d_out {
        return Err(Error::shape("packed_linear", "weight", weight.shape(), format!("[{d_out}, d_in]")));
    }
    let mut dx = Tensor::zeros(&[n, d_in]);
    cpu::product(dy.f32()?, cpu::Weight { values: weight.f32()?, d_out, d_in, transposed: false }, dx.f32_mut()?);
    Ok(dx)
}

fn dimensions(tensor: &Tensor, what: &'static str) -> Result<(usize, usize)> {
    match tensor.shape() {
        &[rows, cols] => Ok((rows, cols)),
        other => Err(Error::shape("packed_linear", what, other, "[rows, columns]")),
    }
}
