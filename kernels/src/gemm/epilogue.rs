//! What follows a product while its result is still in the cache.

use super::view::MatMut;
use crate::{Result, Tensor, gelu, simd, swiglu};

/// A function of every element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The element itself.
    #[default]
    None,
    /// [`gelu`].
    Gelu,
    /// `x / (1 + exp(-x))`, the gate of [`swiglu`].
    Silu,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
}

/// `y = activation(product + bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[d_out]` f32, the same for every row.
    pub bias: Option<&'a Tensor>,
    /// Of every element.
    pub activation: Activation,
    /// `[n, d_out]` f32, for example the input of a block.
    pub residual: Option<&'a Tensor>,
}

impl<'a> Epilogue<'a> {
    /// Checks what a result of this shape is finished with.
    pub(super) fn check(&self, op: &'static str, shape: &[usize]) -> Result<()> {
        self.bias.map_or(Ok(()), |bias| bias.expect_shape(op, "bias", &shape[1..]))?;
        self.residual.map_or(Ok(()), |residual| residual.expect_shape(op, "residual", shape))
    }

    /// All operands of a product, for the question where they are.
    pub(super) fn with(&self, operands: &[(&'static str, &'a Tensor)]) -> Vec<(&'static str, &'a Tensor)> {
        let own = [("bias", self.bias), ("residual", self.residual)];
        operands.iter().copied().chain(own.into_iter().filter_map(|(what, tensor)| Some((what, tensor?)))).collect()
    }
}

/// A checked epilogue without the bias, which the product itself begins with.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    activation: Activation,
    residual: Option<&'a [f32]>,
    cols: usize,
}

impl<'a> Finish<'a> {
    /// Nothing follows.
    pub(super) const NOTHING: Self = Self { activation: Activation::None, residual: None, cols: 0 };

    /// Of a checked epilogue of operands of the host.
    pub(super) fn new(epilogue: &Epilogue<'a>, cols: usize) -> Result<Self> {
        let residual = epilogue.residual.map(Tensor::f32).transpose()?;
        Ok(Self { activation: epilogue.activation, residual, cols })
    }

    /// Finishes the part of the result that begins at a row and a column.
    pub(super) fn apply(&self, row: usize, col: usize, part: &mut MatMut) {
        if self.activation == Activation::None && self.residual.is_none() {
            return;
        }
        for i in 0..part.rows() {
            let y = part.row_mut(i);
            match self.activation {
                Activation::None => {}
                Activation::Gelu => gelu::in_place(y),
                Activation::Silu => swiglu::silu_in_place(y),
                Activation::Relu => y.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v = 0.0),
            }
            if let Some(residual) = self.residual {
                simd::add(y, &residual[(row + i) * self.cols + col..][..y.len()]);
            }
        }
    }
}
