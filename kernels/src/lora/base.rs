//! What a low-rank update stands beside.

use crate::fp8::{self, Fp8Rows};
use crate::nf4::{self, Nf4Weight, Rounding};
use crate::{Dtype, Error, Result, Tensor, gemm};

use super::OP;

/// The weight of a linear layer, in one of several forms.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// `[d_out, d_in]`, of the dtype of what it is multiplied with.
    Dense(&'a Tensor),
    /// In four bits, and how its values are rounded when they are decoded.
    Nf4(&'a Nf4Weight, Rounding),
    /// In eight bits: for what is not trained.
    Fp8(&'a Fp8Rows),
}

impl Base<'_> {
    /// `x · Wᵀ + bias`. On the host the bias is added to the whole product in either form, so that a weight in four bits and the
    /// same decoded give the same bits.
    ///
    /// # Shapes
    /// - `x`: `[n, d_in]` f32 or bf16
    /// - `bias`: `[d_out]` f32
    /// - returns `[n, d_out]` of the dtype of `x`
    ///
    /// # Gradient
    /// That of the input is [`Base::linear_backward_input`].
    ///
    /// # Errors
    /// As [`gemm::linear`], [`nf4::linear`] and [`fp8::linear`].
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let mut y = match self {
            Self::Dense(weight) if x.stream().is_some() => return gemm::linear(x, weight, bias),
            Self::Dense(weight) => gemm::linear(x, weight, None)?,
            Self::Nf4(weight, rounding) => nf4::linear(x, weight, *rounding)?,
            Self::Fp8(weight) => return fp8::linear(x, weight, bias),
        };
        if let Some(bias) = bias {
            gemm::add_bias(&mut y, bias)?;
        }
        Ok(y)
    }

    /// The gradient of [`Base::linear`] with respect to its input: `dx = dy · W`.
    ///
    /// # Shapes
    /// - `dy`: `[n, d_out]` f32 or bf16
    /// - returns `[n, d_in]` of the dtype of `dy`
    ///
    /// # Errors
    /// As [`gemm::linear_backward_input`] and [`nf4::linear_backward_input`]; [`Error::Setting`] for eight bits.
    pub fn linear_backward_input(&self, dy: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => gemm::linear_backward_input(dy, weight),
            Self::Nf4(weight, rounding) => nf4::linear_backward_input(dy, weight, *rounding),
            Self::Fp8(_) => Err(no_gradient()),
        }
    }

    /// The extents: outputs and inputs.
    pub(super) fn extents(&self) -> Result<[usize; 2]> {
        match self {
            Self::Nf4(weight, _) => weight.dimensions(),
            Self::Fp8(weight) => Ok(weight.shape()),
            Self::Dense(weight) => match *weight.shape() {
                [d_out, d_in] => Ok([d_out, d_in]),
                _ => Err(Error::shape(OP, "weight", weight.shape(), "[d_out, d_in]")),
            },
        }
    }

    /// Checks that operands of a dtype can be multiplied with it.
    pub(super) fn expect_dtype(&self, dtype: Dtype) -> Result<()> {
        match self {
            Self::Dense(weight) => weight.expect_dtype(OP, "weight", dtype),
            Self::Nf4(..) | Self::Fp8(_) => Ok(()),
        }
    }

    /// The tensor that tells where it is.
    pub(super) fn place(&self) -> &Tensor {
        match self {
            Self::Dense(weight) => weight,
            Self::Nf4(weight, _) => weight.place(),
            Self::Fp8(weight) => weight.place(),
        }
    }
}

/// Why there is no backward pass through eight bits.
pub(super) fn no_gradient() -> Error {
    Error::Setting { op: OP, what: "a weight in eight bits has no gradient: they are for scoring".to_owned() }
}
