//! A linear layer: a base in one of several forms, perhaps a bias, perhaps a low-rank update.

use kernels::{
    Tensor, dropout, gemm,
    lora::{self, Base, Update},
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
        let base = self.base(weights)?;
        let Some((options, update)) = self.update(weights)? else {
            return Ok((base.linear(x, bias)?, Saved::default()));
        };
        let mut dropped = None;
        if let Some(mask) = keys.mask(self.site, options.dropout) {
            dropout::apply(dropped.insert(x.clone()), &mask, keys.rows())?;
        }
        let (y, inner) = lora::linear(x, dropped.as_ref().unwrap_or(x), base, bias, &update)?;
        Ok((y, Saved { dropped, inner: Some(inner) }))
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
        let base = self.base(weights)?;
        let (Some((options, update)), Some(inner)) = (self.update(weights)?, &saved.inner) else {
            return Ok(need_dx.then(|| base.linear_backward_input(dy)).transpose()?);
        };
        let [da, db] = grads.get_many_mut([&self.lora_a, &self.lora_b])?;
        let input = saved.dropped.as_ref().unwrap_or(x);
        let d_inner = lora::backward_factors(dy, input, inner, &update, da, db)?;
        if !need_dx {
            return Ok(None);
        }
        let mask = keys.mask(self.site, options.dropout);
        let dropout = mask.as_ref().map(|mask| (mask, keys.rows()));
        Ok(Some(lora::linear_backward_input(dy, &d_inner, base, &update, dropout)?))
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

    fn base<'a>(&self, weights: &'a Weights) -> Result<Base<'a>> {
        Ok(match weights.frozen.get(&self.weight) {
            Some(Frozen::Nf4(packed, rounding)) => Base::Nf4(packed, *rounding),
            _ => Base::Dense(weights.dense(&self.weight)?),
        })
    }

    /// The low-rank update of this layer, if it has one.
    fn update<'a>(&self, weights: &'a Weights) -> Result<Option<(&'a LoraOptions, Update<'a>)>> {
        let Some(options) = weights.lora.as_ref().filter(|lora| lora.targets.contains(&self.projection)) else {
            return Ok(None);
        };
        let [a, b] = [weights.trainable.get(&self.lora_a)?, weights.trainable.get(&self.lora_b)?];
        Ok(Some((options, Update { a, b, scale: options.scale() })))
    }
}
