//! Softmax cross-entropy over a large set of classes, fused with the projection that makes the logits.
//!
//! The `n × V` logits are never held: they are made tile by tile and reduced to one log-sum-exp per row. The backward makes
//! them again or, for some thousand classes, goes through the rows in groups whose tiles it keeps in between. On a device
//! those of inputs of up to 128 elements never leave the registers; of wider ones a tile of bounded size is in memory.
//!
//! What is not finite in a row of `x` makes NaN of its loss and its `dx`, and of `dW` and `db`, even with a `row_scale` of
//! 0; in the weight or the bias of a class it makes NaN of everything. A logit of minus infinity alone is a class that
//! cannot be: its loss as a label is infinite.

mod cpu;
mod cuda;
mod log_sum_exp;
#[cfg(test)]
mod reference;
mod softmax;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};
pub use log_sum_exp::{log_sum_exp, log_sum_exp_backward};

/// Where the gradients of weight and bias are added; `None` for what is frozen.
#[derive(Default)]
pub struct Grads<'a> {
    /// `[V, D]` f32, added to.
    pub dw: Option<&'a mut Tensor>,
    /// `[V]` f32, added to.
    pub db: Option<&'a mut Tensor>,
}

/// Losses and the gradient of the input.
#[derive(Debug, PartialEq)]
pub struct Output {
    /// The loss of every row, not scaled: `[n]` f32, in the memory where `x` is.
    pub losses: Tensor,
    /// `[n, D]` f32.
    pub dx: Tensor,
}

/// The loss of every row: `-log softmax(x · Wᵀ + b)[label]`.
///
/// # Shapes
/// - `x`: `[n, D]` f32
/// - `weight`: `[V, D]` f32
/// - `bias`: `[V]` f32
/// - `labels`: `n` class ids
/// - returns `[n]` f32
///
/// # Gradient
/// [`forward_backward`].
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, or if `D` is 0; [`Error::Index`] for a label outside of `0..V`;
/// [`Error::Dtype`] unless everything is f32.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, labels: &[u32]) -> Result<Tensor> {
    const OP: &str = "linear_cross_entropy::forward";
    let operands = Operands { x, weight, bias, labels };
    operands.check(OP)?;
    if let Some(on) = Stream::of(OP, &operands.places())? {
        return cuda::forward(&on, &operands);
    }
    losses(&cpu::normalise(&operands.on_host()?))
}

/// The losses, and the gradients of `Σ row_scale[i] · loss[i]`.
///
/// # Shapes
/// As [`forward`]; `row_scale` has `n` factors, for example `1 / n` for a mean.
///
/// # Gradient
/// With `P = row_scale · (softmax - one_hot)`: `dx = P · W`, `dW += Pᵀ · x`, `db += Σ P`.
///
/// # Errors
/// As [`forward`].
///
/// # Source
/// The tiling is that of "Cut Your Losses in Large-Vocabulary Language Models" (Wijmans et al., 2024).
pub fn forward_backward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    labels: &[u32],
    row_scale: &[f32],
    grads: Grads<'_>,
) -> Result<Output> {
    const OP: &str = "linear_cross_entropy::forward_backward";
    let operands = Operands { x, weight, bias, labels };
    let [n, classes, d] = operands.check(OP)?;
    if row_scale.len() != n {
        return Err(Error::shape(OP, "row_scale", &[row_scale.len()], format!("[{n}]")));
    }
    if let Some(on) = Stream::of(OP, &grads.places(OP, &operands, [n, classes, d])?)? {
        return cuda::forward_backward(&on, &operands, row_scale, grads, cuda::Plan::of(&operands));
    }
    let mut dx = Tensor::dirty(&[n, d]);
    let plan = cpu::Plan::new(classes, d);
    let rows = cpu::forward_backward(&operands.on_host()?, plan, row_scale, grads.on_host()?, dx.f32_mut()?);
    Ok(Output { losses: losses(&rows)?, dx })
}

impl<'a> Grads<'a> {
    /// Checks them; returns them and the operands by their names.
    fn places<'b>(
        &'b self,
        op: &'static str,
        operands: &'b Operands<'_>,
        [_, classes, d]: [usize; 3],
    ) -> Result<Vec<(&'static str, &'b Tensor)>> {
        let mut places = operands.places();
        if let Some(dw) = &self.dw {
            dw.expect_shape(op, "dw", &[classes, d])?;
            places.push(("dw", dw));
        }
        if let Some(db) = &self.db {
            db.expect_shape(op, "db", &[classes])?;
            places.push(("db", db));
        }
        Ok(places)
    }

    /// Their values, on the host.
    fn on_host(self) -> Result<cpu::Gradients<'a>> {
        Ok(cpu::Gradients {
            dw: self.dw.map(Tensor::f32_mut).transpose()?,
            db: self.db.map(Tensor::f32_mut).transpose()?,
        })
    }
}

/// The losses of rows whose softmax is known.
fn losses(rows: &[softmax::Row]) -> Result<Tensor> {
    Tensor::from_f32(&[rows.len()], rows.iter().map(softmax::Row::loss).collect())
}

/// What the losses are made of.
struct Operands<'a> {
    x: &'a Tensor,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    labels: &'a [u32],
}

impl<'a> Operands<'a> {
    /// Checks them; returns `n`, `V` and `D`.
    fn check(&self, op: &'static str) -> Result<[usize; 3]> {
        let [n, classes, d] = self.check_shapes(op)?;
        if self.labels.len() != n {
            return Err(Error::shape(op, "labels", &[self.labels.len()], format!("[{n}]")));
        }
        if let Some(&label) = self.labels.iter().find(|&&l| l as usize >= classes) {
            return Err(Error::Index { op, what: "label", index: label as usize, len: classes });
        }
        Ok([n, classes, d])
    }

    /// Checks all but the labels; returns `n`, `V` and `D`.
    fn check_shapes(&self, op: &'static str) -> Result<[usize; 3]> {
        let Self { x, weight, bias, .. } = *self;
        let (n, classes, d) = (x.rows(), weight.rows(), x.cols());
        x.expect_dtype(op, "x", Dtype::F32)?;
        if d == 0 {
            return Err(Error::shape(op, "x", x.shape(), "at least one column"));
        }
        weight.expect_shape(op, "weight", &[classes, d])?;
        if let Some(bias) = bias {
            bias.expect_shape(op, "bias", &[classes])?;
        }
        Ok([n, classes, d])
    }

    /// The tensors by their names.
    fn places(&self) -> Vec<(&'static str, &'a Tensor)> {
        let bias = self.bias.map(|bias| ("bias", bias));
        [("x", self.x), ("weight", self.weight)].into_iter().chain(bias).collect()
    }

    /// Their values, on the host.
    fn on_host(&self) -> Result<Problem<'a>> {
        Ok(Problem {
            x: self.x.f32()?,
            weight: self.weight.f32()?,
            bias: self.bias.map(Tensor::f32).transpose()?,
            labels: self.labels,
            n: self.x.rows(),
            classes: self.weight.rows(),
            d: self.x.cols(),
        })
    }
}

/// Checked operands.
struct Problem<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    labels: &'a [u32],
    n: usize,
    classes: usize,
    d: usize,
}
