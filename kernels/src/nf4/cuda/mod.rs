//! The device side: weights in the memory of a device, and the kernels that decode them.
//!
//! [`Regime`] says which kernel serves which shape. Within a regime of our own kernels what a row of the result comes to does
//! not depend on the other rows of the batch; where the weight is decoded first, the library may sum in another order for another
//! number of rows. Two calls give the same bits.

mod decoded;
mod dequantize;
mod few;
mod fused;
mod parts;
mod regime;
#[cfg(test)]
mod tests;

pub(super) use dequantize::{Form, dequantize};
pub(super) use parts::Parts;

use self::regime::Regime;
use super::{Nf4Weight, Rounding};
use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

const OP: &str = "nf4";

/// What the weight is multiplied with, and from which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// `x · Wᵀ`: the outputs are the rows of the weight, the terms its columns.
    Forward,
    /// `dy · W`: the other way round.
    Backward,
}

impl Pass {
    /// The extents of a weight as outputs and terms.
    fn extents(self, [d_out, d_in]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Forward => [d_out, d_in],
            Self::Backward => [d_in, d_out],
        }
    }
}

/// `x · Wᵀ`, of checked operands.
pub(super) fn linear(on: &Stream, x: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    product(on, Pass::Forward, x, weight, rounding)
}

/// `dy · W`, of checked operands.
pub(super) fn linear_backward_input(
    on: &Stream,
    dy: &Tensor,
    weight: &Nf4Weight,
    rounding: Rounding,
) -> Result<Tensor> {
    product(on, Pass::Backward, dy, weight, rounding)
}

fn product(on: &Stream, pass: Pass, x: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let extents = weight.dimensions()?;
    if extents.contains(&0) || x.rows() == 0 {
        return nothing(on, &[x.rows(), pass.extents(extents)[0]], x.dtype());
    }
    if x.dtype() == Dtype::F32 {
        return match Regime::of_f32(pass, x.rows(), extents) {
            Regime::Few => few::f32(on, x, weight, rounding),
            _ => decoded::f32(on, pass, x, weight, rounding, decoded::BAND_BYTES),
        };
    }
    by(on, pass, x, weight, Regime::of_bf16(pass, x.rows(), extents))
}

/// A product of bfloat16 in a regime that serves its shape, or in one that is slower and takes less memory.
fn by(on: &Stream, pass: Pass, x: &Tensor, weight: &Nf4Weight, regime: Regime) -> Result<Tensor> {
    let product = match regime {
        Regime::Few => few::bf16(on, x, weight),
        Regime::Fused { splits } => fused::product(on, pass, x, weight, splits),
        Regime::Decoded => decoded::bf16(on, pass, x, weight),
    };
    match product {
        Err(Error::Memory { .. }) if regime::can_be_fused(pass, weight.dimensions()?) => {
            fused::product(on, pass, x, weight, 1)
        }
        Err(Error::Memory { .. }) => decoded::bf16_in_bands(on, pass, x, weight, decoded::BAND_BYTES),
        product => product,
    }
}

/// A product without terms, or without elements.
fn nothing(on: &Stream, shape: &[usize], dtype: Dtype) -> Result<Tensor> {
    let mut zeros = on.result(shape, dtype)?;
    on.fill_zero(&mut zeros)?;
    Ok(zeros)
}
