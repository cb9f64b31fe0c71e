//! The AdamW optimiser.

mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::grad_norm::{Clipping, Factor};
use crate::{Dtype, Error, Result, Tensor};

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

    /// The same in the memory where the parameter is.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has no room.
    pub fn beside(param: &Tensor) -> Result<Self> {
        Ok(Self { m: param.zeros_like()?, v: param.zeros_like()? })
    }
}

/// A parameter to be updated, and what its update needs.
#[derive(Debug)]
pub struct Update<'a> {
    /// The parameter.
    pub param: &'a mut Tensor,
    /// Its gradient, shaped like it.
    pub grad: &'a Tensor,
    /// Its running means.
    pub state: &'a mut Moments,
    /// The settings of its group.
    pub hyper: &'a Hyper,
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
/// [`Error::Shape`] if shapes differ; [`Error::Dtype`] unless everything is f32; [`Error::Place`] unless everything is in the
/// same memory; [`Error::Setting`] for step 0 and for settings that would make NaN of every parameter. Gradients, moments and
/// `grad_scale` are not looked into: NaN in one element stays in that element, an infinite gradient makes NaN of it.
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
    apply("adamw::step", vec![Update { param, grad, state, hyper }], step, Factor::Known(grad_scale))
}

/// Updates many parameters in place, each as [`step`] does and to the same bits; on a device all of them at once, without
/// waiting for the factor of clipping.
///
/// # Shapes
/// As [`step`], of every parameter.
///
/// # Errors
/// As [`step`], before any parameter is changed.
pub fn step_all<'a>(updates: impl IntoIterator<Item = Update<'a>>, step: u64, clipping: &Clipping) -> Result<()> {
    apply("adamw::step_all", updates.into_iter().collect(), step, clipping.factor())
}

fn apply(op: &'static str, mut updates: Vec<Update<'_>>, step: u64, factor: Factor<'_>) -> Result<()> {
    for update in &updates {
        update.check(op, step)?;
    }
    let mut places: Vec<_> = updates.iter().flat_map(Update::operands).collect();
    if let Factor::There(factor) = factor {
        places.push(("clipping", factor));
    }
    let on = Stream::of(op, &places)?;
    let (grad_scale, clipping) = match factor {
        Factor::Known(scale) => (scale, None),
        Factor::There(factor) => (1.0, Some(factor)),
    };
    let factors = Factors::of_all(&updates, step, grad_scale);
    if let Some(on) = on {
        return cuda::step(&on, &mut updates, &factors, clipping);
    }
    for (Update { param, grad, state, .. }, factors) in updates.into_iter().zip(factors) {
        cpu::step(param.f32_mut()?, grad.f32()?, state.m.f32_mut()?, state.v.f32_mut()?, factors);
    }
    Ok(())
}

impl Update<'_> {
    fn check(&self, op: &'static str, step: u64) -> Result<()> {
        self.hyper.check(op)?;
        if step == 0 {
            return Err(Error::Setting { op, what: "the step is 0, the first one is 1".to_owned() });
        }
        self.param.expect_dtype(op, "param", Dtype::F32)?;
        self.grad.expect_shape(op, "grad", self.param.shape())?;
        self.state.m.expect_shape(op, "m", self.param.shape())?;
        self.state.v.expect_shape(op, "v", self.param.shape())
    }

    fn operands(&self) -> [(&'static str, &Tensor); 4] {
        [("param", self.param), ("grad", self.grad), ("m", &self.state.m), ("v", &self.state.v)]
    }
}

/// What one step multiplies with; worked out once in double precision. The kernel reads it as it lies.
#[derive(Clone, Copy, Default)]
#[repr(C)]
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
    /// Those of every parameter; of one group they are worked out once.
    fn of_all(updates: &[Update<'_>], step: u64, grad_scale: f32) -> Vec<Self> {
        let mut groups: Vec<(Hyper, Self)> = Vec::new();
        let of_one = |update: &Update<'_>| match groups.iter().find(|(hyper, _)| hyper == update.hyper) {
            Some((_, factors)) => *factors,
            None => {
                let factors = Self::new(update.hyper, step, grad_scale);
                groups.push((*update.hyper, factors));
                factors
            }
        };
        updates.iter().map(of_one).collect()
    }

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
