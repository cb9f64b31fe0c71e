//! Softmax cross-entropy over a large set of classes, fused with the projection that makes the logits.
//!
//! The `n × V` logits are never held: they are made tile by tile and reduced to one log-sum-exp per row. The backward makes
//! them again or, for some thousand classes, goes through the rows in groups whose tiles it keeps in between.
//!
//! What is not finite in a row of `x` makes NaN of its loss and its `dx`, and of `dW` and `db`, even with a `row_scale` of
//! 0; in the weight or the bias of a class it makes NaN of everything. A logit of minus infinity alone is a class that
//! cannot be: its loss as a label is infinite.

mod cpu;
#[cfg(test)]
mod reference;
mod softmax;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor};

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
    /// The loss of every row, not scaled.
    pub losses: Vec<f32>,
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
///
/// # Gradient
/// [`forward_backward`].
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, or if `D` is 0; [`Error::Index`] for a label outside of `0..V`;
/// [`Error::Dtype`] unless everything is f32.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, labels: &[u32]) -> Result<Vec<f32>> {
    let problem = Problem::new("linear_cross_entropy::forward", x, weight, bias, labels)?;
    Ok(cpu::normalise(&problem).iter().map(softmax::Row::loss).collect())
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
    let problem = Problem::new(OP, x, weight, bias, labels)?;
    if row_scale.len() != problem.n {
        return Err(Error::shape(OP, "row_scale", &[row_scale.len()], format!("[{}]", problem.n)));
    }
    let Grads { dw, db } = grads;
    if let Some(dw) = &dw {
        dw.expect_shape(OP, "dw", &[problem.classes, problem.d])?;
    }
    if let Some(db) = &db {
        db.expect_shape(OP, "db", &[problem.classes])?;
    }
    let gradients =
        cpu::Gradients { dw: dw.map(Tensor::f32_mut).transpose()?, db: db.map(Tensor::f32_mut).transpose()? };
    let mut dx = Tensor::dirty(&[problem.n, problem.d]);
    let rows = cpu::forward_backward(
        &problem,
        cpu::Plan::new(problem.classes, problem.d),
        row_scale,
        gradients,
        dx.f32_mut()?,
    );
    Ok(Output { losses: rows.iter().map(softmax::Row::loss).collect(), dx })
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

impl<'a> Problem<'a> {
    fn new(
        op: &'static str,
        x: &'a Tensor,
        weight: &'a Tensor,
        bias: Option<&'a Tensor>,
        labels: &'a [u32],
    ) -> Result<Self> {
        let (n, classes, d) = (x.rows(), weight.rows(), x.cols());
        x.expect_f32(op, "x")?;
        if d == 0 {
            return Err(Error::shape(op, "x", x.shape(), "at least one column"));
        }
        weight.expect_shape(op, "weight", &[classes, d])?;
        if let Some(bias) = bias {
            bias.expect_shape(op, "bias", &[classes])?;
        }
        if labels.len() != n {
            return Err(Error::shape(op, "labels", &[labels.len()], format!("[{n}]")));
        }
        if let Some(&label) = labels.iter().find(|&&l| l as usize >= classes) {
            return Err(Error::Index { op, what: "label", index: label as usize, len: classes });
        }
        let bias = bias.map(Tensor::f32).transpose()?;
        Ok(Self { x: x.f32()?, weight: weight.f32()?, bias, labels, n, classes, d })
    }
}
