//! The device side: tiles of logits in bounded memory, made by products, for inputs of any width.

mod products;

pub(super) use self::products::Tiles;
#[cfg(test)]
pub(super) use self::products::forward_backward as by_products;
use super::{Grads, Operands, Output};
use crate::cuda::Stream;
use crate::{Result, Tensor};

pub(super) fn forward(on: &Stream, operands: &Operands<'_>) -> Result<Tensor> {
    products::forward(on, operands, Tiles::new(operands.weight.rows(), operands.x.cols()))
}

pub(super) fn forward_backward(
    on: &Stream,
    operands: &Operands<'_>,
    row_scale: &[f32],
    grads: Grads<'_>,
) -> Result<Output> {
    let tiles = Tiles::new(operands.weight.rows(), operands.x.cols());
    products::forward_backward(on, operands, row_scale, grads, tiles)
}
