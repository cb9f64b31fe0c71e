//! A linear layer: a base in one of several forms, perhaps a bias, perhaps a low-rank update.

use kernels::{
    Tensor, dropout, gemm, lora,
    nf4::{self, Rounding},
};

use super::{
    lora::{LoraOptions, Projection},
    pass::Keys,
    store::{Frozen, Weights},
};
use crate::{Result, params::Params};

/// Names and sizes of a linear layer; the values are in [`Weights`].
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) projection: Projection,
    pub(crate) weight: String,
    pub(crate) bias: Option<String>,
    pub(crate) lora_a: String,
    pub(crate) lora_b: String,
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    /// Every dropout of the network has its own number.
    site: u32,
}

/// What the backward pass of a low-rank update needs.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The input after dropout, if there was dropout.
    dropped: Option<Tensor>,
    /// The input times the first factor.
    inner: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(layer: usize, projection: Projection, d_in: usize, d_out: usize, bias: bool) -> Self {
        let module = format!("model.layers.{layer}.{}", projection.path());
        Self {
            projection,
            weight: format!("{module}.weight"),
            bias: bias.then(|| format!("{module}.bias")),
            lora_a: format!("base_model.model.{module}.lora_A.weight"),
            lora_b: format!("base_model.model.{module}.lora_B.weight"),
            d_in,
            d_out,
            site: (layer * Projection::ALL.len() + projection as usize) as u32,
        }
    }

    /// `x [n, d_in]` to `[n, d_out]`.
    pub(crate) fn forward(&self, weights: &Weights, x: &Tensor, keys: Keys<'_>) -> Result<(Tensor, Saved)> {
        let bias = self.bias.as_deref().map(|name| weights.dense(name)).transpose()?;
        let mut y = match weights.frozen.get(&self.weight) {
            Some(Frozen::Nf4(packed)) => {
                let mut y = nf4::linear(x, packed, Rounding::Bf16)?;
                if let Some(bias) = bias {
                    gemm::add_bias(&mut y, bias)?;
                }
                y
            }
            _ => gemm::linear(x, weights.dense(&self.weight)?, bias)?,
        };
        let mut saved = Saved::default();
        if let Some((options, a, b)) = self.update(weights)? {
            if let Some(mask) = keys.mask(self.site, options.dropout) {
                let mut dropped = x.clone();
                dropout::apply(&mut dropped, &mask, keys.rows())?;
                saved.dropped = Some(dropped);
            }
            let input = saved.dropped.as_ref().unwrap_or(x);
            saved.inner = Some(lora::forward(input, a, b, options.scale(), &mut y)?);
        }
        Ok((y, saved))
    }

    /// Adds the gradients of what is trained and, if asked for, returns that of the input.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward(
        &self,
        weights: &Weights,
        dy: &Tensor,
        x: &Tensor,
        saved: &Saved,
        keys: Keys<'_>,
        grads: &mut Params,
        need_dx: bool,
    ) -> Result<Option<Tensor>> {
        self.backward_base(dy, x, grads)?;
        let mut dx = need_dx.then(|| self.backward_input(weights, dy)).transpose()?;
        if let (Some((options, a, b)), Some(inner)) = (self.update(weights)?, &saved.inner) {
            let [da, db] = grads.get_many_mut([&self.lora_a, &self.lora_b])?;
            let input = saved.dropped.as_ref().unwrap_or(x);
            let mut through = lora::backward(dy, input, inner, a, b, options.scale(), da, db)?;
            if let Some(dx) = &mut dx {
                if let Some(mask) = keys.mask(self.site, options.dropout) {
                    dropout::apply(&mut through, &mask, keys.rows())?;
                }
                dx.add(&through)?;
            }
        }
        Ok(dx)
    }

    fn backward_base(&self, dy: &Tensor, x: &Tensor, grads: &mut Params) -> Result<()> {
        if !grads.contains(&self.weight) {
            return Ok(());
        }
        match &self.bias {
            Some(bias) => {
                let [dw, db] = grads.get_many_mut([&self.weight, bias])?;
                gemm::linear_backward_weight(dy, x, dw, Some(db))?;
            }
            None => gemm::linear_backward_weight(dy, x, grads.get_mut(&self.weight)?, None)?,
        }
        Ok(())
    }

    fn backward_input(&self, weights: &Weights, dy: &Tensor) -> Result<Tensor> {
        Ok(match weights.frozen.get(&self.weight) {
            Some(Frozen::Nf4(packed)) => nf4::linear_backward_input(dy, packed, Rounding::Bf16)?,
            _ => gemm::linear_backward_input(dy, weights.dense(&self.weight)?)?,
        })
    }

    /// The low-rank update of this layer, if it has one.
    fn update<'a>(&self, weights: &'a Weights) -> Result<Option<(&'a LoraOptions, &'a Tensor, &'a Tensor)>> {
        match &weights.lora {
            Some(options) if options.targets.contains(&self.projection) => {
                Ok(Some((options, weights.trainable.get(&self.lora_a)?, weights.trainable.get(&self.lora_b)?)))
            }
            _ => Ok(None),
        }
    }
}
