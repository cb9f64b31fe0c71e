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
    /// Queries, keys and values of rows `[n, hidden]`.
    pub(super) fn look(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let normed = self.before_attention.forward(x)?;
        Ok([self.query.forward(&normed)?, self.key.forward(&normed)?, self.value.forward(&normed)?])
    }

    /// What follows attention, which gave `seen`.
    pub(super) fn rest(&self, seen: &Tensor, x: &Tensor) -> Result<Tensor> {
        let x = self.out.then(seen, Activation::None, Some(x))?;
        let inner = self.up.then(&self.before_mlp.forward(&x)?, self.activation, None)?;
        self.down.then(&inner, Activation::None, Some(&x))
    }
}
