//! The device side: narrow inputs by kernels of our own, wide ones by products around which kernels are.

mod fused;
mod products;

pub(super) use self::fused::Division;
pub(super) use self::products::Tiles;
use super::{Grads, Operands, Output};
use crate::cuda::{Arg, Stream};
use crate::{Result, Tensor};

/// How logits are made: a function of the weight's shape alone, so that in our own kernels nothing about a row depends on its
/// company. Products are the library's, which may sum in another order for another number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// In the registers of tensor cores.
    Fused(Division),
    /// By products, in memory.
    Products(Tiles),
}

impl Plan {
    pub(super) fn new(classes: usize, d: usize) -> Self {
        if d <= fused::WIDEST { Self::Fused(Division::new(classes, d)) } else { Self::Products(Tiles::new(classes)) }
    }

    /// That of an operation.
    pub(super) fn of(operands: &Operands<'_>) -> Self {
        Self::new(operands.weight.rows(), operands.x.cols())
    }
}

pub(super) fn forward(on: &Stream, operands: &Operands<'_>) -> Result<Tensor> {
    match Plan::of(operands) {
        Plan::Fused(division) => fused::forward(on, operands, division),
        Plan::Products(tiles) => products::forward(on, operands, tiles),
    }
}

pub(super) fn forward_backward(
    on: &Stream,
    operands: &Operands<'_>,
    row_scale: &[f32],
    grads: Grads<'_>,
    plan: Plan,
) -> Result<Output> {
    match plan {
        Plan::Fused(division) => fused::forward_backward(on, operands, row_scale, grads, division),
        Plan::Products(tiles) => products::forward_backward(on, operands, row_scale, grads, tiles),
    }
}

/// The log of the sum of exponentials of every row, whose labels are no class.
pub(super) fn log_sum_exp(on: &Stream, operands: &Operands<'_>, plan: Plan) -> Result<Tensor> {
    match plan {
        // Where no logit is that of a label, a loss is all of it.
        Plan::Fused(division) => fused::forward(on, operands, division),
        Plan::Products(tiles) => products::log_sum_exp(on, operands, tiles),
    }
}

/// The gradients of rows whose `lse` is known already, perhaps with classes that are not here, and whose labels are no class.
pub(super) fn log_sum_exp_backward(
    on: &Stream,
    operands: &Operands<'_>,
    lse: &[f32],
    row_scale: &[f32],
    grads: Grads<'_>,
    plan: Plan,
) -> Result<Tensor> {
    match plan {
        Plan::Fused(division) => fused::backward(on, operands, lse, row_scale, grads, division),
        Plan::Products(tiles) => products::backward(on, operands, lse, row_scale, grads, tiles),
    }
}

/// The place of a number of 32 bits.
fn at(array: Arg, index: usize) -> Arg {
    Arg::Address(array.address().offset(index * size_of::<f32>()))
}
