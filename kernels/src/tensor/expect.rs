//! What operations ask of their operands.

use super::{Dtype, Tensor};
use crate::{Error, Result};

impl Tensor {
    /// Checks the shape of an operand, and that its elements are what most operations compute with: 32-bit floats.
    pub(crate) fn expect_shape(&self, op: &'static str, what: &'static str, shape: &[usize]) -> Result<()> {
        self.expect_dims(op, what, shape)?;
        self.expect_dtype(op, what, Dtype::F32)
    }

    /// Checks the type of an operand's elements, wherever they are.
    pub(crate) fn expect_dtype(&self, op: &'static str, what: &'static str, expected: Dtype) -> Result<()> {
        let found = self.dtype();
        if found == expected { Ok(()) } else { Err(Error::Dtype { op, what, found, expected }) }
    }

    /// Checks that an operand's elements are f32 or bfloat16, wherever they are.
    pub(crate) fn expect_floats(&self, op: &'static str, what: &'static str) -> Result<()> {
        if self.dtype() == Dtype::Bf16 { Ok(()) } else { self.expect_dtype(op, what, Dtype::F32) }
    }

    /// Checks that an operand has the shape and the dtype of another one.
    pub(crate) fn expect_like(&self, op: &'static str, what: &'static str, other: &Self) -> Result<()> {
        self.expect_dims(op, what, other.shape())?;
        self.expect_dtype(op, what, other.dtype())
    }

    /// Checks the shape of an operand that may have other elements too.
    pub(crate) fn expect_dims(&self, op: &'static str, what: &'static str, shape: &[usize]) -> Result<()> {
        if self.shape == shape { Ok(()) } else { Err(Error::shape(op, what, &self.shape, format!("{shape:?}"))) }
    }

    /// The values as 32-bit floats; an error names the operation and the operand.
    pub(crate) fn expect_f32(&self, op: &'static str, what: &'static str) -> Result<&[f32]> {
        self.expect_dtype(op, what, Dtype::F32)?;
        self.f32()
    }
}
