//! The linear recurrence layer: a complex diagonal recurrence between two complex projections.
//!
//! For every sequence, starting from a zero state: `h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t + b)` and `y_t = Re(C h_t + c)`, with
//! `λ = exp(-ν + iθ)`; ν, θ and γ are stored as logarithms. Complex numbers are held as two real tensors.
//!
//! What is not finite in a row of `x` reaches that row and the later ones of its sequence, in `dy` the earlier ones; in a
//! weight, every row, save for logarithms that are infinite and mean something: `log ν = ∞` is no memory, `log γ = -∞` no
//! input. Any of it reaches the gradients of the weights.
//!
//! On a device the layer is one kernel each way where the shapes allow it (`tiles.cuh`), else products and the recurrence alone
//! (`scan.cuh`). Nothing is read back, and what is launched and uploaded depends on the numbers of rows and sequences, not on
//! lengths or values.

mod coefficients;
mod cpu;
mod cuda;
mod fused;
mod plan;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Segments, Tensor, gemm};
use coefficients::Coefficients;
use cuda::Prepared;

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
pub struct Saved(Kept);

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    /// Everything.
    States(Box<States>),
    /// On a device, the states between tiles of rows, from which the others are computed again.
    Carries { carries: Tensor, prepared: Prepared },
}

/// What the recurrence reads and writes, as real and imaginary parts `[n, S]`.
#[derive(Clone, Debug, PartialEq)]
struct States {
    /// `B x + b` before γ.
    v: [Tensor; 2],
    /// The states.
    h: [Tensor; 2],
    /// On a device, what its kernels know of coefficients and rows.
    prepared: Option<Prepared>,
}

impl Saved {
    fn states(v: [Tensor; 2], h: [Tensor; 2], prepared: Option<Prepared>) -> Self {
        Self(Kept::States(Box::new(States { v, h, prepared })))
    }

    /// Checks that it is of so many rows and channels, and of a layer of so many inputs as far as that matters.
    fn expect(&self, op: &'static str, n: usize, d: usize, state: usize) -> Result<()> {
        let prepared = match &self.0 {
            Kept::States(states) => return states.h[0].expect_shape(op, "saved", &[n, state]),
            Kept::Carries { prepared, .. } => prepared,
        };
        let found = [prepared.plan.rows, prepared.state()];
        match found == [n, state] {
            true if fused::fits(d, state) => Ok(()),
            true => Err(Error::shape(op, "saved", &found, format!("what the forward of {d} inputs keeps"))),
            false => Err(Error::shape(op, "saved", &found, format!("{:?}", [n, state]))),
        }
    }

    /// One of its tensors, for where it is.
    fn tensor(&self) -> &Tensor {
        match &self.0 {
            Kept::States(states) => &states.h[0],
            Kept::Carries { carries, .. } => carries,
        }
    }
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
    check(OP, x, weights, segments)?;
    if let Some(on) = Stream::of(OP, &weights.with("x", x))? {
        return cuda::forward(&on, x, weights, segments);
    }
    let v = project(x, weights)?;
    let h = scan_on_host(weights.params_log, segments, v.each_ref())?;
    let y = read_out(&h, weights)?;
    Ok((y, Saved::states(v, h, None)))
}

/// The recurrence alone: `h_t = λ ⊙ h_{t-1} + γ ⊙ v_t` from a zero state for every sequence.
///
/// # Shapes
/// - `v`: `[n, S]` f32, real and imaginary part, rows packed as `segments` says
/// - `params_log`: log ν, log θ, log γ, `[3, S]` f32
/// - returns `[n, S]` f32, likewise
///
/// # Gradient
/// None: [`backward`] is that of the layer.
///
/// # Errors
/// [`Error::Shape`] if the operands or segments do not fit; [`Error::Dtype`] unless everything is f32.
///
/// # Source
/// As [`forward`].
pub fn scan(v: [&Tensor; 2], params_log: &Tensor, segments: &Segments) -> Result<[Tensor; 2]> {
    const OP: &str = "lru_scan::scan";
    let shape = [segments.rows(), params_log.cols()];
    params_log.expect_shape(OP, "params_log", &[3, shape[1]])?;
    v[0].expect_shape(OP, "v_re", &shape)?;
    v[1].expect_shape(OP, "v_im", &shape)?;
    if let Some(on) = Stream::of(OP, &[("v_re", v[0]), ("v_im", v[1]), ("params_log", params_log)])? {
        let prepared = Prepared::new(&on, params_log, segments, cuda::scan_cut(shape[0], shape[1]))?;
        return cuda::scan(&on, &prepared, v);
    }
    scan_on_host(params_log, segments, v)
}

fn scan_on_host(params_log: &Tensor, segments: &Segments, v: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let mut h = v.map(|part| Tensor::dirty(part.shape()));
    let [h_re, h_im] = &mut h;
    let coefficients = Coefficients::new(params_log.f32()?);
    cpu::scan(&coefficients, segments, [v[0].f32()?, v[1].f32()?], [h_re.f32_mut()?, h_im.f32_mut()?]);
    Ok(h)
}

/// `B x + b`, real and imaginary part.
fn project(x: &Tensor, weights: &Weights<'_>) -> Result<[Tensor; 2]> {
    let re = gemm::linear(x, weights.in_re, Some(weights.in_bias_re))?;
    Ok([re, gemm::linear(x, weights.in_im, Some(weights.in_bias_im))?])
}

/// `Re(C h + c)`.
fn read_out(h: &[Tensor; 2], weights: &Weights<'_>) -> Result<Tensor> {
    let mut y = gemm::linear(&h[0], weights.out_re, Some(weights.out_bias_re))?; // [n, D]
    gemm::add_linear(-1.0, &h[1], weights.out_im, &mut y)?;
    Ok(y)
}

/// The gradient of [`forward`]: returns `dx`, adds to `grads`.
///
/// # Shapes
/// - `dy`, `x`: `[n, D]` f32
/// - returns `[n, D]` f32
///
/// `x` and `segments` are those of the forward: a device has kept where sequences begin, and does not look again.
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
    saved.expect(OP, n, x.cols(), state)?;
    grads.check(OP, x.cols(), state)?;
    let mut operands = weights.with("x", x);
    operands.extend([("dy", dy), ("saved", saved.tensor())]);
    let on = Stream::of(OP, &grads.with(operands))?;
    match (&on, &saved.0) {
        (None, Kept::States(states)) => backward_on_host([dy, x], states, weights, segments, grads),
        (Some(on), Kept::States(states)) => cuda::backward_in_steps(on, [dy, x], states, weights, grads),
        (Some(on), Kept::Carries { carries, prepared }) => {
            fused::backward(on, [dy, x], carries, prepared, weights, grads)
        }
        (None, Kept::Carries { .. }) => Err(Error::Device("states on a device lie on the host".to_owned())),
    }
}

fn backward_on_host(
    [dy, x]: [&Tensor; 2],
    states: &States,
    weights: &Weights<'_>,
    segments: &Segments,
    grads: &mut Grads<'_>,
) -> Result<Tensor> {
    let mut g = read_out_back(dy, &states.h, weights, grads)?;
    let [g_re, g_im] = &mut g;
    let coefficients = Coefficients::new(weights.params_log.f32()?);
    let sums = cpu::scan_back(&coefficients, segments, states, [g_re.f32_mut()?, g_im.f32_mut()?])?;
    coefficients.add_gradient(&sums, grads.params_log.f32_mut()?);
    project_back(&g, x, weights, grads)
}

/// The gradient of [`read_out`]: returns that of the states, `[n, S]`.
fn read_out_back(dy: &Tensor, h: &[Tensor; 2], weights: &Weights<'_>, grads: &mut Grads<'_>) -> Result<[Tensor; 2]> {
    gemm::linear_backward_weight(dy, &h[0], grads.out_re, Some(&mut *grads.out_bias_re))?;
    gemm::add_weight_gradient(-1.0, dy, &h[1], grads.out_im)?;
    let re = gemm::linear_backward_input(dy, weights.out_re)?;
    Ok([re, gemm::scaled_backward_input(-1.0, dy, weights.out_im)?])
}

/// The gradient of [`project`]: returns that of `x`.
fn project_back(g: &[Tensor; 2], x: &Tensor, weights: &Weights<'_>, grads: &mut Grads<'_>) -> Result<Tensor> {
    gemm::linear_backward_weight(&g[0], x, grads.in_re, Some(&mut *grads.in_bias_re))?;
    gemm::linear_backward_weight(&g[1], x, grads.in_im, Some(&mut *grads.in_bias_im))?;
    let mut dx = gemm::linear_backward_input(&g[0], weights.in_re)?;
    gemm::add_linear_backward_input(1.0, &g[1], weights.in_im, &mut dx)?;
    Ok(dx)
}

/// Checks everything that the products inside would find fault with in words of their own; returns rows and state size.
fn check(op: &'static str, x: &Tensor, weights: &Weights<'_>, segments: &Segments) -> Result<(usize, usize)> {
    let (n, d, state) = (x.rows(), x.cols(), weights.params_log.cols());
    if segments.rows() != n {
        return Err(Error::shape(op, "x", x.shape(), format!("{} rows, as the segments have", segments.rows())));
    }
    x.expect_dtype(op, "x", Dtype::F32)?;
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

impl<'a> Weights<'a> {
    /// All of them behind another operand, with names.
    fn with(&self, what: &'static str, first: &'a Tensor) -> Vec<(&'static str, &'a Tensor)> {
        vec![
            (what, first),
            ("params_log", self.params_log),
            ("in_re", self.in_re),
            ("in_im", self.in_im),
            ("in_bias_re", self.in_bias_re),
            ("in_bias_im", self.in_bias_im),
            ("out_re", self.out_re),
            ("out_im", self.out_im),
            ("out_bias_re", self.out_bias_re),
        ]
    }
}

impl Grads<'_> {
    /// All of them behind other operands, with names.
    fn with<'a>(&'a self, operands: Vec<(&'static str, &'a Tensor)>) -> Vec<(&'static str, &'a Tensor)> {
        let grads: [(_, &Tensor); 8] = [
            ("grads.params_log", self.params_log),
            ("grads.in_re", self.in_re),
            ("grads.in_im", self.in_im),
            ("grads.in_bias_re", self.in_bias_re),
            ("grads.in_bias_im", self.in_bias_im),
            ("grads.out_re", self.out_re),
            ("grads.out_im", self.out_im),
            ("grads.out_bias_re", self.out_bias_re),
        ];
        operands.into_iter().chain(grads).collect()
    }

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
