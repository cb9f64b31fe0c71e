//! The linear recurrence layer: a complex diagonal recurrence between two complex projections.
//!
//! For every sequence, starting from a zero state: `h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t + b)` and `y_t = Re(C h_t + c)`, with
//! `λ = exp(-ν + iθ)`; ν, θ and γ are stored as logarithms. Complex numbers are held as two real tensors.
//!
//! What is not finite in a row of `x` reaches that row and the later ones of its sequence, in `dy` the earlier ones; in a
//! weight, every row, save for logarithms that are infinite and mean something: `log ν = ∞` is no memory, `log γ = -∞` no
//! input. Any of it reaches the gradients of the weights.

mod coefficients;
mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Segments, Tensor, gemm};
use coefficients::Coefficients;

/// The parameters of the layer; `S` is the size of the state, `D` the width of the input.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// log ν, log θ, log γ: `[3, S]`.
    pub params_log: &'a Tensor,
    /// Real part of B: `[S, D]`.
    pub in_re: &'a Tensor,
    /// Imaginary part of B: `[S, D]`.
    pub in_im: &'a Tensor,
    /// Real part of b: `[S]`.
    pub in_bias_re: &'a Tensor,
    /// Imaginary part of b: `[S]`.
    pub in_bias_im: &'a Tensor,
    /// Real part of C: `[D, S]`.
    pub out_re: &'a Tensor,
    /// Imaginary part of C: `[D, S]`.
    pub out_im: &'a Tensor,
    /// Real part of c: `[D]`. Its imaginary part has no effect.
    pub out_bias_re: &'a Tensor,
}

/// Where the gradients are added, shaped like [`Weights`].
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Grads<'a> {
    pub params_log: &'a mut Tensor,
    pub in_re: &'a mut Tensor,
    pub in_im: &'a mut Tensor,
    pub in_bias_re: &'a mut Tensor,
    pub in_bias_im: &'a mut Tensor,
    pub out_re: &'a mut Tensor,
    pub out_im: &'a mut Tensor,
    pub out_bias_re: &'a mut Tensor,
}

/// What the backward needs beside input and weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// `B x + b` before γ, real part: `[n, S]`.
    v_re: Tensor,
    /// The same, imaginary part.
    v_im: Tensor,
    /// States, real part: `[n, S]`.
    h_re: Tensor,
    /// States, imaginary part.
    h_im: Tensor,
}

/// Runs the layer over packed sequences.
///
/// # Shapes
/// - `x`: `[n, D]` f32, rows packed as `segments` says
/// - returns `[n, D]` f32
///
/// # Gradient
/// [`backward`].
///
/// # Errors
/// [`Error::Shape`] if weights or segments do not fit; [`Error::Dtype`] unless everything is f32.
///
/// # Source
/// Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023, in the form of LRURec (Yue et al.,
/// 2024), whose input normalisation γ multiplies the bias too.
pub fn forward(x: &Tensor, weights: &Weights<'_>, segments: &Segments) -> Result<(Tensor, Saved)> {
    const OP: &str = "lru_scan::forward";
    let (n, state) = check(OP, x, weights, segments)?;
    let v_re = gemm::linear(x, weights.in_re, Some(weights.in_bias_re))?;
    let v_im = gemm::linear(x, weights.in_im, Some(weights.in_bias_im))?;
    let mut h_re = Tensor::dirty(&[n, state]);
    let mut h_im = Tensor::dirty(&[n, state]);
    let coefficients = Coefficients::new(weights.params_log.f32()?);
    cpu::scan(&coefficients, segments, [v_re.f32()?, v_im.f32()?], [h_re.f32_mut()?, h_im.f32_mut()?]);

    let mut y = gemm::linear(&h_re, weights.out_re, Some(weights.out_bias_re))?; // [n, D]
    gemm::add_linear(-1.0, &h_im, weights.out_im, &mut y)?;
    Ok((y, Saved { v_re, v_im, h_re, h_im }))
}

/// The gradient of [`forward`]: returns `dx`, adds to `grads`.
///
/// # Shapes
/// - `dy`, `x`: `[n, D]` f32
/// - returns `[n, D]` f32
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit; [`Error::Dtype`] unless everything is f32.
///
/// # Source
/// With `g` the gradient of a state as a complex number: `g_t = Cᴴ dy_t + conj(λ) g_{t+1}`, and the gradient of λ is
/// `Σ g_t conj(h_{t-1})`. States are saved and not reconstructed: dividing by |λ| of 0.8 would amplify rounding.
pub fn backward(
    dy: &Tensor,
    x: &Tensor,
    saved: &Saved,
    weights: &Weights<'_>,
    segments: &Segments,
    grads: &mut Grads<'_>,
) -> Result<Tensor> {
    const OP: &str = "lru_scan::backward";
    let (n, state) = check(OP, x, weights, segments)?;
    dy.expect_shape(OP, "dy", &[n, x.cols()])?;
    saved.h_re.expect_shape(OP, "saved", &[n, state])?;
    grads.check(OP, x.cols(), state)?;

    gemm::linear_backward_weight(dy, &saved.h_re, grads.out_re, Some(&mut *grads.out_bias_re))?;
    gemm::add_weight_gradient(-1.0, dy, &saved.h_im, grads.out_im)?;
    let mut g_re = gemm::linear_backward_input(dy, weights.out_re)?; // [n, S]
    let mut g_im = gemm::scaled_backward_input(-1.0, dy, weights.out_im)?;

    let coefficients = Coefficients::new(weights.params_log.f32()?);
    let sums = cpu::scan_back(&coefficients, segments, saved, [g_re.f32_mut()?, g_im.f32_mut()?])?;
    coefficients.add_gradient(&sums, grads.params_log.f32_mut()?);

    // From here on `g` is the gradient of `B x + b`.
    gemm::linear_backward_weight(&g_re, x, grads.in_re, Some(&mut *grads.in_bias_re))?;
    gemm::linear_backward_weight(&g_im, x, grads.in_im, Some(&mut *grads.in_bias_im))?;
    let mut dx = gemm::linear_backward_input(&g_re, weights.in_re)?;
    gemm::add_linear_backward_input(1.0, &g_im, weights.in_im, &mut dx)?;
    Ok(dx)
}

/// Checks everything that the products inside would find fault with in words of their own; returns rows and state size.
fn check(op: &'static str, x: &Tensor, weights: &Weights<'_>, segments: &Segments) -> Result<(usize, usize)> {
    let (n, d, state) = (x.rows(), x.cols(), weights.params_log.cols());
    if segments.rows() != n {
        return Err(Error::shape(op, "x", x.shape(), format!("{} rows, as the segments have", segments.rows())));
    }
    x.expect_f32(op, "x")?;
    weights.params_log.expect_shape(op, "params_log", &[3, state])?;
    weights.in_re.expect_shape(op, "in_re", &[state, d])?;
    weights.in_im.expect_shape(op, "in_im", &[state, d])?;
    weights.in_bias_re.expect_shape(op, "in_bias_re", &[state])?;
    weights.in_bias_im.expect_shape(op, "in_bias_im", &[state])?;
    weights.out_re.expect_shape(op, "out_re", &[d, state])?;
    weights.out_im.expect_shape(op, "out_im", &[d, state])?;
    weights.out_bias_re.expect_shape(op, "out_bias_re", &[d])?;
    Ok((n, state))
}

impl Grads<'_> {
    /// Checks all of them before anything is added to one.
    fn check(&self, op: &'static str, d: usize, state: usize) -> Result<()> {
        self.params_log.expect_shape(op, "grads.params_log", &[3, state])?;
        self.in_re.expect_shape(op, "grads.in_re", &[state, d])?;
        self.in_im.expect_shape(op, "grads.in_im", &[state, d])?;
        self.in_bias_re.expect_shape(op, "grads.in_bias_re", &[state])?;
        self.in_bias_im.expect_shape(op, "grads.in_bias_im", &[state])?;
        self.out_re.expect_shape(op, "grads.out_re", &[d, state])?;
        self.out_im.expect_shape(op, "grads.out_im", &[d, state])?;
        self.out_bias_re.expect_shape(op, "grads.out_bias_re", &[d])
    }
}
