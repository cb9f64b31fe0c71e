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
    /// The input, after dropout, times the first factor.
    inner: Option<Tensor>,
}

const READ: &str = "an input that is read was given";

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
        let dropped = self.dropped(x, options, keys)?;
        let (y, inner) = lora::linear(x, dropped.as_ref().unwrap_or(x), base, bias, &update)?;
        Ok((y, Saved { inner: Some(inner) }))
    }

    /// What the update reads, if something is dropped of it: a function of the input and the keys of its rows.
    fn dropped(&self, x: &Tensor, options: &LoraOptions, keys: Keys<'_>) -> Result<Option<Tensor>> {
        let Some(mask) = keys.mask(self.site, options.dropout) else { return Ok(None) };
        let mut dropped = x.clone();
        dropout::apply(&mut dropped, &mask, keys.rows())?;
        Ok(Some(dropped))
    }

    /// Whether the backward pass reads the layer's input.
    pub(crate) fn reads_input(&self, weights: &Weights, grads: &Params) -> bool {
        grads.contains(&self.weight)
            || weights.lora.as_ref().is_some_and(|lora| lora.targets.contains(&self.projection))
    }

    /// Adds the gradients of what is trained and, if asked for, returns that of the input. `x` must be given where
    /// [`Linear::reads_input`] says so.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward(
        &self,
        weights: &Weights,
        dy: &Tensor,
        x: Option<&Tensor>,
        saved: &Saved,
        keys: Keys<'_>,
        grads: &mut Params,
        need_dx: bool,
    ) -> Result<Option<Tensor>> {
        if grads.contains(&self.weight) {
            self.backward_base(dy, x.expect(READ), grads)?;
        }
        let base = self.base(weights)?;
        let (Some((options, update)), Some(inner)) = (self.update(weights)?, &saved.inner) else {
            return Ok(need_dx.then(|| base.linear_backward_input(dy)).transpose()?);
        };
        let [da, db] = grads.get_many_mut([&self.lora_a, &self.lora_b])?;
        let x = x.expect(READ);
        let dropped = self.dropped(x, options, keys)?;
        let d_inner = lora::backward_factors(dy, dropped.as_ref().unwrap_or(x), inner, &update, da, db)?;
        if !need_dx {
            return Ok(None);
        }
        let mask = keys.mask(self.site, options.dropout);
        let dropout = mask.as_ref().map(|mask| (mask, keys.rows()));
        Ok(Some(lora::linear_backward_input(dy, &d_inner, base, &update, dropout)?))
    }

    fn backward_base(&self, dy: &Tensor, x: &Tensor, grads: &mut Params) -> Result<()> {
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
            Some(Frozen::Fp8(rows)) => Base::Fp8(rows),
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
