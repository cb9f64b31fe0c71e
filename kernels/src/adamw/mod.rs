//! The AdamW optimiser.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor};

/// The settings of one parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// The step size.
    pub learning_rate: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; 0 for biases and norms.
    pub weight_decay: f32,
}

impl Hyper {
    fn check(&self, op: &'static str) -> Result<()> {
        let fraction = |v: f32| (0.0..1.0).contains(&v);
        let settings = [
            ("learning rate", self.learning_rate, self.learning_rate.is_finite(), "a finite number"),
            ("weight decay", self.weight_decay, self.weight_decay.is_finite(), "a finite number"),
            ("eps", self.eps, self.eps.is_finite() && self.eps >= 0.0, "a finite number of at least 0"),
            ("beta1", self.beta1, fraction(self.beta1), "0 <= beta1 < 1"),
            ("beta2", self.beta2, fraction(self.beta2), "0 <= beta2 < 1"),
        ];
        match settings.into_iter().find(|(.., good, _)| !good) {
            Some((name, v, _, allowed)) => {
                Err(Error::Setting { op, what: format!("the {name} is {v}, allowed is {allowed}") })
            }
            None => Ok(()),
        }
    }
}

/// The running means that AdamW keeps for a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Mean of gradients, shaped like the parameter.
    pub m: Tensor,
    /// Mean of squared gradients, shaped like the parameter.
    pub v: Tensor,
}

impl Moments {
    /// Moments of a parameter that has not been updated yet.
    #[must_use]
    pub fn zeros(shape: &[usize]) -> Self {
        Self { m: Tensor::zeros(shape), v: Tensor::zeros(shape) }
    }
}

/// Updates a parameter in place.
///
/// With `g = grad_scale · grad`: `p -= lr · wd · p`; `m += (1 - β1)(g - m)`; `v = β2 v + (1 - β2) g²`;
/// `p -= lr · m̂ / (√v̂ + eps)`, where hats divide by `1 - βᵗ`.
///
/// # Shapes
/// `param`, `grad`, `state.m` and `state.v` have one shape, f32.
///
/// `step` counts from 1. `grad_scale` is the factor of gradient clipping, see [`crate::grad_norm::clip_scale`].
///
/// # Errors
/// [`Error::Shape`] if shapes differ; [`Error::Dtype`] unless everything is f32; [`Error::Setting`] for step 0 and for
/// settings that would make NaN of every parameter. Gradients, moments and `grad_scale` are not looked into: NaN in one
/// element stays in that element, an infinite gradient makes NaN of it.
///
/// # Source
/// Loshchilov and Hutter, 2019; the order of operations is that of PyTorch's AdamW.
pub fn step(
    param: &mut Tensor,
    grad: &Tensor,
    state: &mut Moments,
    hyper: &Hyper,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    const OP: &str = "adamw::step";
    hyper.check(OP)?;
    if step == 0 {
        return Err(Error::Setting { op: OP, what: "the step is 0, the first one is 1".to_owned() });
    }
    param.expect_f32(OP, "param")?;
    grad.expect_shape(OP, "grad", param.shape())?;
    state.m.expect_shape(OP, "m", param.shape())?;
    state.v.expect_shape(OP, "v", param.shape())?;
    let factors = Factors::new(hyper, step, grad_scale);
    cpu::step(param.f32_mut()?, grad.f32()?, state.m.f32_mut()?, state.v.f32_mut()?, factors);
    Ok(())
}

/// What one step multiplies with; worked out once in double precision.
#[derive(Clone, Copy)]
struct Factors {
    grad_scale: f32,
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_size: f32,
    root_correction: f32,
    eps: f32,
}

impl Factors {
    fn new(hyper: &Hyper, step: u64, grad_scale: f32) -> Self {
        let power = |beta: f32| exact(beta).powf(step as f64);
        let lr = exact(hyper.learning_rate);
        Self {
            grad_scale,
            keep: (1.0 - lr * exact(hyper.weight_decay)) as f32,
            one_minus_beta1: (1.0 - exact(hyper.beta1)) as f32,
            beta2: hyper.beta2,
            one_minus_beta2: (1.0 - exact(hyper.beta2)) as f32,
            step_size: (lr / (1.0 - power(hyper.beta1))) as f32,
            root_correction: (1.0 / (1.0 - power(hyper.beta2)).sqrt()) as f32,
            eps: hyper.eps,
        }
    }
}

/// The decimal number that a setting was written as: 0.999 and not the nearest `f32`, which would change `1 - β2`
/// in its fifth digit.
fn exact(setting: f32) -> f64 {
    setting.to_string().parse().unwrap_or(f64::from(setting))
}
