//! Layers and where they get their weights.

use kernels::{
    Device, Dtype, Tensor,
    gemm::{self, Activation, Epilogue, PackedWeight},
    layer_norm,
};

use crate::{Precision, Result, checkpoint::TensorSource, weights};

/// Reads layers by name.
pub(super) struct Loader<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) precision: Precision,
    /// Where the network is to be.
    pub(super) device: &'a Device,
}

impl Loader<'_> {
    /// A tensor of this shape, on the host still.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.shaped(name, shape)
    }

    /// `name.weight` and `name.bias`.
    pub(super) fn linear(&self, name: &str, d_out: usize, d_in: usize) -> Result<Linear> {
        let weight = self.source.shaped(&format!("{name}.weight"), &[d_out, d_in])?;
        Linear::new(weight, Some(self.source.shaped(&format!("{name}.bias"), &[d_out])?), self)
    }

    /// `name.weight` and `name.bias`.
    pub(super) fn norm(&self, name: &str, width: usize, eps: f32) -> Result<Norm> {
        let part = |part: &str| -> Result<Tensor> {
            Ok(self.device.put(&self.source.shaped(&format!("{name}.{part}"), &[width])?)?)
        };
        Ok(Norm { weight: part("weight")?, bias: part("bias")?, eps, precision: self.precision })
    }
}

/// `y = x · Wᵀ + b`.
#[derive(Debug)]
pub(super) struct Linear {
    weight: PackedWeight,
    bias: Option<Tensor>,
    precision: Precision,
}

impl Linear {
    /// A layer of tensors of the host.
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>, loader: &Loader<'_>) -> Result<Self> {
        let weight = match loader.precision {
            Precision::F32 => weight,
            Precision::Bf16 => weights::cast(&weight, Dtype::Bf16)?,
        };
        let bias = bias.map(|bias| loader.device.put(&bias)).transpose()?;
        Ok(Self { weight: PackedWeight::new(&loader.device.put(&weight)?)?, bias, precision: loader.precision })
    }

    /// `x · Wᵀ + b` of `x`: `[n, d_in]`, f32 or an operand; returns `[n, d_out]` f32.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.sum(x, None)
    }

    /// `x · Wᵀ + b + residual`, f32.
    pub(super) fn onto(&self, residual: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.sum(x, Some(residual))
    }

    /// `activation(x · Wᵀ + b)` as an operand: what only products read.
    pub(super) fn operand(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let epilogue = Epilogue { bias: self.bias.as_ref(), activation, residual: None };
        Ok(match self.precision {
            Precision::F32 => gemm::linear_packed(x, &self.weight, &epilogue)?,
            Precision::Bf16 => gemm::linear_packed_rounded(x, &self.weight, &epilogue)?,
        })
    }

    fn sum(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let epilogue = Epilogue { bias: self.bias.as_ref(), activation: Activation::None, residual };
        Ok(gemm::linear_packed(x, &self.weight, &epilogue)?)
    }
}

/// Layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
    precision: Precision,
}

impl Norm {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm::forward(x, &self.weight, &self.bias, self.eps)?.0)
    }

    /// The same as an operand: what only products read.
    pub(super) fn operand(&self, x: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => self.forward(x),
            Precision::Bf16 => Ok(layer_norm::forward_rounded(x, &self.weight, &self.bias, self.eps)?),
        }
    }
}
