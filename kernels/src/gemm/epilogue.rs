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

    pub(super) fn new(op: &'static str, epilogue: &Epilogue<'a>, shape: [usize; 2]) -> Result<Self> {
        let residual = match epilogue.residual {
            Some(residual) => {
                residual.expect_shape(op, "residual", &shape)?;
                Some(residual.f32()?)
            }
            None => None,
        };
        Ok(Self { activation: epilogue.activation, residual, cols: shape[1] })
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
