//! AdamW over named parameters: decay groups by name, clipping by the global norm, a state that can be saved.

use std::collections::BTreeMap;

use kernels::{
    Tensor,
    adamw::{self, Hyper, Moments, Update},
    grad_norm::{self, Clipping},
};

use super::Params;
use crate::{Error, Result, weights};

/// The settings of [`AdamW`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWConfig {
    /// The step size, before any schedule.
    pub learning_rate: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of the parameters that are decayed.
    pub weight_decay: f32,
    /// Parameters whose names contain one of these are not decayed.
    pub no_decay: Vec<String>,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: Option<f64>,
}

impl AdamWConfig {
    /// Whether a parameter of this name is decayed.
    fn decays(&self, name: &str) -> bool {
        !self.no_decay.iter().any(|part| name.contains(part.as_str()))
    }
}

/// AdamW and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
    step: u64,
}

/// The name under which the number of steps is saved.
const STEP: &str = "step";

impl AdamW {
    /// An optimiser that has not made a step.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, moments: BTreeMap::new(), step: 0 }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Sets the step size of the following steps: what a schedule calls.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.config.learning_rate = learning_rate;
    }

    /// The number of steps made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Updates every parameter that has a gradient; returns the global norm of the gradients before clipping.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for a gradient without a parameter; [`Error::Kernel`] if shapes differ.
    pub fn step(&mut self, params: &mut Params, grads: &Params) -> Result<f64> {
        Ok(self.update(params, grads)?.norm()?)
    }

    /// The same without waiting for the norm, which a device may still be working out.
    ///
    /// # Errors
    /// As [`AdamW::step`].
    pub fn update(&mut self, params: &mut Params, grads: &Params) -> Result<Clipping> {
        let clipping = grad_norm::clip(grads.tensors(), self.config.max_grad_norm)?;
        self.update_clipped(params, grads, &clipping)?;
        Ok(clipping)
    }

    /// The same where these are some of the gradients that are clipped together.
    ///
    /// # Errors
    /// As [`AdamW::step`].
    pub fn update_clipped(&mut self, params: &mut Params, grads: &Params, clipping: &Clipping) -> Result<()> {
        self.step += 1;
        for (name, _) in grads.iter() {
            let param = params.get(name)?;
            if !self.moments.contains_key(name) {
                self.moments.insert(name.to_owned(), Moments::beside(param)?);
            }
        }
        let [decayed, spared] = [true, false].map(|decays| self.hyper(decays));
        let (config, has_gradient) = (&self.config, |name: &str| grads.contains(name));
        // All three are in the order of names.
        let params = params.iter_mut().filter(|(name, _)| has_gradient(name));
        let moments = self.moments.iter_mut().filter(|(name, _)| has_gradient(name));
        let updates = params.zip(moments).zip(grads.tensors()).map(|(((name, param), (_, state)), grad)| {
            let hyper = if config.decays(name) { &decayed } else { &spared };
            Update { param, grad, state, hyper }
        });
        Ok(adamw::step_all(updates, self.step, clipping)?)
    }

    fn hyper(&self, decays: bool) -> Hyper {
        let c = &self.config;
        let weight_decay = if decays { c.weight_decay } else { 0.0 };
        Hyper { learning_rate: c.learning_rate, beta1: c.beta1, beta2: c.beta2, eps: c.eps, weight_decay }
    }

    /// The state as safetensors: `m.<name>`, `v.<name>` and the number of steps. Training that goes on from it gives the
    /// same bits as training that never stopped.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if the state cannot be written.
    pub fn save(&self) -> Result<Vec<u8>> {
        let mut state = Params::new();
        for (name, moments) in &self.moments {
            state.insert(format!("m.{name}"), moments.m.clone());
            state.insert(format!("v.{name}"), moments.v.clone());
        }
        state.insert(STEP, Tensor::from_u8(&[8], self.step.to_le_bytes().to_vec())?);
        weights::to_bytes(&state)
    }

    /// The optimiser that [`AdamW::save`] wrote, for the given parameters.
    ///
    /// # Errors
    /// [`Error::Safetensors`] for other bytes; [`Error::TensorShape`], [`Error::MissingTensor`] or
    /// [`Error::UnknownTensor`] if the state belongs to other parameters.
    pub fn load(config: AdamWConfig, bytes: &[u8], params: &Params) -> Result<Self> {
        let mut state = weights::from_bytes("optimizer state", bytes)?;
        let step = state.remove(STEP)?;
        let step: [u8; 8] = step.u8()?.try_into().map_err(|_| Error::TensorShape {
            name: STEP.to_owned(),
            found: step.shape().to_vec(),
            expected: vec![8],
        })?;
        let mut optimizer = Self { config, moments: BTreeMap::new(), step: u64::from_le_bytes(step) };
        let mut second = Params::new();
        for (name, tensor) in state {
            match (name.strip_prefix("m."), name.strip_prefix("v.")) {
                (Some(of), _) => {
                    expect_shape(&name, &tensor, params.get(of)?)?;
                    let m = tensor.beside(params.get(of)?)?;
                    let moments = Moments { v: m.zeros_like()?, m };
                    optimizer.moments.insert(of.to_owned(), moments);
                }
                (_, Some(of)) => second.insert(of, tensor),
                _ => return Err(Error::UnknownTensor { name }),
            }
        }
        for (name, moments) in &mut optimizer.moments {
            let v = second.remove(name)?;
            expect_shape(name, &v, &moments.m)?;
            moments.v = v.beside(&moments.m)?;
        }
        match second.into_iter().next() {
            Some((name, _)) => Err(Error::MissingTensor { name: format!("m.{name}") }),
            None => Ok(optimizer),
        }
    }
}

fn expect_shape(name: &str, tensor: &Tensor, like: &Tensor) -> Result<()> {
    if tensor.shape() == like.shape() {
        return Ok(());
    }
    let (found, expected) = (tensor.shape().to_vec(), like.shape().to_vec());
    Err(Error::TensorShape { name: name.to_owned(), found, expected })
}
