//! The softmax of classes that are only some of all: what each part of them says of a row, and their gradients once the whole is
//! known.
//!
//! A catalogue that is shared out is scored in parts. The sum of exponentials of all of it is that of its parts, and so is
//! every gradient: cross-entropy is `log_sum_exp` less the logit of the label, which no part has to know of.

use super::{Grads, Operands, cpu, cuda, softmax};
use crate::cuda::Stream;
use crate::{Error, Result, Tensor};

/// The label of a row that has none: no class is so high, nor what stands for one that is not there.
const NONE: u32 = u32::MAX - 1;

/// The log of the sum of exponentials of every row of `x · Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[n, D]` f32
/// - `weight`: `[V, D]` f32
/// - `bias`: `[V]` f32
/// - returns `[n]` f32, in the memory where `x` is
///
/// # Gradient
/// [`log_sum_exp_backward`].
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, or if `D` is 0; [`Error::Dtype`] unless everything is f32.
pub fn log_sum_exp(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "linear_cross_entropy::log_sum_exp";
    let labels = vec![NONE; x.rows()];
    let operands = Operands { x, weight, bias, labels: &labels };
    operands.check_shapes(OP)?;
    if let Some(on) = Stream::of(OP, &operands.places())? {
        return cuda::log_sum_exp(&on, &operands, cuda::Plan::of(&operands));
    }
    let rows = cpu::normalise(&operands.on_host()?);
    Tensor::from_f32(&[rows.len()], rows.iter().map(softmax::Row::lse).collect())
}

/// The part of some classes in the gradients of `Σ dy[i] · lse[i]`, where `lse` may be of more classes than these.
///
/// # Shapes
/// As [`log_sum_exp`]; `lse` and `dy` have `n` numbers each. Returns `dx`, `[n, D]` f32.
///
/// # Gradient
/// With `P = dy · exp(x · Wᵀ + b - lse)`: `dx = P · W`, `dW += Pᵀ · x`, `db += Σ P`.
///
/// # Errors
/// As [`log_sum_exp`].
pub fn log_sum_exp_backward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    lse: &[f32],
    dy: &[f32],
    grads: Grads<'_>,
) -> Result<Tensor> {
    const OP: &str = "linear_cross_entropy::log_sum_exp_backward";
    let labels = vec![NONE; x.rows()];
    let operands = Operands { x, weight, bias, labels: &labels };
    let shape = operands.check_shapes(OP)?;
    for (what, numbers) in [("lse", lse), ("dy", dy)] {
        if numbers.len() != shape[0] {
            return Err(Error::shape(OP, what, &[numbers.len()], format!("[{}]", shape[0])));
        }
    }
    if let Some(on) = Stream::of(OP, &grads.places(OP, &operands, shape)?)? {
        return cuda::log_sum_exp_backward(&on, &operands, lse, dy, grads, cuda::Plan::of(&operands));
    }
    let [n, classes, d] = shape;
    let mut dx = Tensor::dirty(&[n, d]);
    let known: Vec<softmax::Row> = lse.iter().map(|lse| softmax::Row::known(*lse)).collect();
    cpu::backward(&operands.on_host()?, cpu::Plan::new(classes, d), &known, dy, grads.on_host()?, dx.f32_mut()?);
    Ok(dx)
}
