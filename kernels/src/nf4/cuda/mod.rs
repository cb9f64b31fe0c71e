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
use super::{BAND_BYTES, Nf4Weight, Rounding};
use crate::cuda::{Arg, Stream};
use crate::gemm::low_rank::{LowRank, begin};
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

/// What a product is made of, checked.
#[derive(Clone, Copy)]
struct Operands<'a> {
    pass: Pass,
    /// `[n, terms]` f32 or bf16.
    x: &'a Tensor,
    weight: &'a Nf4Weight,
    /// What is summed with it: in the forward with a transposed right factor, in the backward with one that is not.
    update: Option<LowRank<'a>>,
}

impl Operands<'_> {
    /// The extents of the weight as outputs and terms.
    fn extents(&self) -> Result<[usize; 2]> {
        Ok(self.pass.extents(self.weight.dimensions()?))
    }

    /// The shape of the result.
    fn shape(&self) -> Result<[usize; 2]> {
        Ok([self.x.rows(), self.extents()?[0]])
    }
}

/// What every kernel that multiplies takes first: x, the weight, the update.
fn operands(o: &Operands<'_>) -> Result<Vec<Arg>> {
    Ok([&[o.x.arg()?][..], &parts::args_of_matrix(o.weight)?, &LowRank::args(OP, o.update.as_ref())?].concat())
}

/// `x · Wᵀ`, of checked operands, and what is added to it.
pub(crate) fn linear(
    on: &Stream,
    x: &Tensor,
    weight: &Nf4Weight,
    rounding: Rounding,
    update: Option<LowRank<'_>>,
) -> Result<Tensor> {
    product(on, &Operands { pass: Pass::Forward, x, weight, update }, rounding)
}

/// `dy · W`, of checked operands, and what is added to it.
pub(crate) fn linear_backward_input(
    on: &Stream,
    dy: &Tensor,
    weight: &Nf4Weight,
    rounding: Rounding,
    update: Option<LowRank<'_>>,
) -> Result<Tensor> {
    product(on, &Operands { pass: Pass::Backward, x: dy, weight, update }, rounding)
}

/// `dx += dy · W`, of checked operands of either dtype; `dx` is f32, and rounding is for `dy` in f32.
pub(crate) fn add_linear_backward_input(
    on: &Stream,
    dy: &Tensor,
    weight: &Nf4Weight,
    rounding: Rounding,
    dx: &mut Tensor,
) -> Result<()> {
    if dx.is_empty() || dy.is_empty() {
        return Ok(());
    }
    let operands = Operands { pass: Pass::Backward, x: dy, weight, update: None };
    decoded::add(on, &operands, rounding, BAND_BYTES, (dx, 1.0))
}

fn product(on: &Stream, o: &Operands<'_>, rounding: Rounding) -> Result<Tensor> {
    let (n, extents, dtype) = (o.x.rows(), o.weight.dimensions()?, o.x.dtype());
    if extents.contains(&0) || n == 0 {
        return nothing(on, o);
    }
    if dtype == Dtype::F32 {
        return match Regime::of_f32(o.pass, n, extents) {
            Regime::Few => few::f32(on, o, rounding),
            _ => decoded::f32(on, o, rounding, BAND_BYTES),
        };
    }
    by(on, o, Regime::of_bf16(o.pass, n, extents))
}

/// A product of bfloat16 in a regime that serves its shape, or in one that is slower and takes less memory.
fn by(on: &Stream, o: &Operands<'_>, regime: Regime) -> Result<Tensor> {
    let product = match regime {
        Regime::Few => few::bf16(on, o),
        Regime::Fused { splits } => fused::product(on, o, splits),
        Regime::Decoded => decoded::bf16(on, o),
    };
    match product {
        Err(Error::Memory { .. }) if regime::can_be_fused(o.pass, o.weight.dimensions()?) => fused::product(on, o, 1),
        Err(Error::Memory { .. }) => decoded::bf16_in_bands(on, o, BAND_BYTES),
        product => product,
    }
}

/// A product without terms, or without elements.
fn nothing(on: &Stream, o: &Operands<'_>) -> Result<Tensor> {
    let dtype = o.x.dtype();
    let (mut y, kept) = begin(on, o.update.as_ref(), &o.shape()?, [dtype; 2])?;
    if kept == 0.0 {
        on.fill_zero(&mut y)?;
    }
    Ok(y)
}
