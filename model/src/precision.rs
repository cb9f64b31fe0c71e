//! What the products of a network are made of.

use std::borrow::Cow;

use kernels::{
    Dtype, Tensor,
    attention::{self, Operands, Saved, Shape},
    rms_norm,
};

use crate::Result;

/// The floats that products are made of. What they are summed in, norms, and what goes around the layers are f32; what
/// only a product reads is rounded as soon as it is there, the keys and values that a decoder keeps included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16, summed in f32.
    Bf16,
}

impl Precision {
    /// Its name, as job files have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of an operand.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
        }
    }

    /// What is there in f32 as an operand.
    pub(crate) fn operand(self, x: &Tensor) -> Result<Cow<'_, Tensor>> {
        if x.dtype() == self.dtype() {
            return Ok(Cow::Borrowed(x));
        }
        Ok(Cow::Owned(x.cast(self.dtype())?))
    }

    /// Attention with products of these floats.
    pub(crate) fn attention(self, operands: &Operands<'_>, shape: &Shape) -> Result<Tensor> {
        Ok(match self {
            Self::F32 => attention::forward(operands, shape)?.0,
            Self::Bf16 => attention::forward_bf16(operands, shape)?,
        })
    }

    /// The same, and what its backward pass needs.
    pub(crate) fn attention_saved(self, operands: &Operands<'_>, shape: &Shape) -> Result<(Tensor, Saved)> {
        Ok(match self {
            Self::F32 => attention::forward(operands, shape)?,
            Self::Bf16 => attention::forward_bf16_saved(operands, shape)?,
        })
    }

    /// The gradients of queries, keys and values.
    pub(crate) fn attention_backward(
        self,
        d_out: &Tensor,
        operands: &Operands<'_>,
        out: &Tensor,
        saved: &Saved,
        shape: &Shape,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        Ok(match self {
            Self::F32 => attention::backward(d_out, operands, out, saved, shape, None)?,
            Self::Bf16 => attention::backward_bf16(d_out, operands, out, saved, shape, None)?,
        })
    }

    /// The normed rows as an operand.
    pub(crate) fn rms_norm(self, x: &Tensor, gain: &Tensor, eps: f32) -> Result<(Tensor, rms_norm::Saved)> {
        Ok(match self {
            Self::F32 => rms_norm::forward(x, gain, eps)?,
            Self::Bf16 => rms_norm::forward_rounded(x, gain, eps)?,
        })
    }

    /// `x += y`, and the normed rows of `x` as an operand.
    pub(crate) fn add_then_rms_norm(self, x: &mut Tensor, y: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
        Ok(match self {
            Self::F32 => rms_norm::add_then_forward(x, y, gain, eps)?.0,
            Self::Bf16 => rms_norm::add_then_forward_rounded(x, y, gain, eps)?.0,
        })
    }
}

/// What a product made, in f32: what goes around the layers.
pub(crate) fn widened(x: Tensor) -> Result<Tensor> {
    if x.dtype() == Dtype::F32 { Ok(x) } else { Ok(x.cast(Dtype::F32)?) }
}
