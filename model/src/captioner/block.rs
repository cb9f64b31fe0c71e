//! A block of a transformer that normalises before attention and before the layers behind it: the vision tower and the
//! decoder are made of such blocks.

use kernels::{Tensor, gemm::Activation};

use super::linear::{Linear, Norm};
use crate::Result;

#[derive(Debug)]
pub(super) struct Block {
    pub(super) before_attention: Norm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) out: Linear,
    pub(super) before_mlp: Norm,
    pub(super) up: Linear,
    pub(super) activation: Activation,
    pub(super) down: Linear,
}

impl Block {
    /// Queries, keys and values of rows `[n, hidden]`, as operands.
    pub(super) fn look(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let normed = self.before_attention.operand(x)?;
        let of = |layer: &Linear| layer.operand(&normed, Activation::None);
        Ok([of(&self.query)?, of(&self.key)?, of(&self.value)?])
    }

    /// What follows attention, which gave `seen`.
    pub(super) fn rest(&self, seen: &Tensor, x: &Tensor) -> Result<Tensor> {
        let x = self.out.onto(x, seen)?;
        let inner = self.up.operand(&self.before_mlp.operand(&x)?, self.activation)?;
        self.down.onto(&x, &inner)
    }
}
