//! Low-rank updates in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

mod merge;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kernels::{Dtype, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lora::{LoraOptions, Projection};
use crate::{Error, Result, params::Params, weights};
pub use merge::{Merge, Merged};

/// The file of the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file of the weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The end of the name of a first factor.
const FACTOR_A: &str = ".lora_A.weight";
/// The end of the name of a second factor.
const FACTOR_B: &str = ".lora_B.weight";
/// What PEFT puts before the names of the base.
const WRAPPER: &str = "base_model.model.";

/// Low-rank updates apart from any base.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Rank, scale and targets.
    pub options: LoraOptions,
    /// What its configuration says of the base: a path or a name.
    pub base: String,
    factors: Params,
}

/// The update of one weight: `W + scale · B · A`.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The weight that it changes: `model.layers.0.self_attn.q_proj.weight`.
    pub weight: &'a str,
    /// Which projection that is.
    pub projection: Projection,
    /// `[rank, d_in]`.
    pub a: &'a Tensor,
    /// `[d_out, rank]`.
    pub b: &'a Tensor,
    scale: f32,
}

impl Adapter {
    /// An adapter from the text of its configuration and the bytes of its weights.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that are not supported; [`Error::Adapter`] for factors without their partner or of
    /// another rank, and for tensors that are no factors.
    pub fn from_bytes(config_json: &str, tensors: &[u8]) -> Result<Self> {
        let factors = weights::from_bytes_f32(WEIGHTS_FILE, tensors)?;
        let raw = Raw::read(config_json)?;
        let options = raw.options(&factors)?;
        let adapter = Self { options, base: raw.base_model_name_or_path.unwrap_or_default(), factors };
        adapter.check()?;
        Ok(adapter)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Adapter(what));
        for (name, tensor) in self.factors.iter() {
            let partner = match (name.strip_suffix(FACTOR_A), name.strip_suffix(FACTOR_B)) {
                (Some(module), _) => format!("{module}{FACTOR_B}"),
                (_, Some(module)) => format!("{module}{FACTOR_A}"),
                (None, None) => return wrong(format!("tensor `{name}` is no factor of a low-rank update")),
            };
            let (rank, axis) = (self.options.rank, usize::from(name.ends_with(FACTOR_B)));
            if tensor.shape().len() != 2 || tensor.shape()[axis] != rank {
                return wrong(format!("tensor `{name}` has shape {:?}, but r is {rank}", tensor.shape()));
            }
            if !self.factors.contains(&partner) {
                return wrong(format!("tensor `{name}` is there without `{partner}`"));
            }
            if projection_of(name).is_none_or(|p| !self.options.targets.contains(&p)) {
                return wrong(format!("tensor `{name}` is of no projection that target_modules names"));
            }
        }
        if self.factors.is_empty() { wrong("it holds no tensors".to_owned()) } else { Ok(()) }
    }

    /// The factors, by PEFT's names.
    #[must_use]
    pub fn factors(&self) -> &Params {
        &self.factors
    }

    /// Its updates in the order of their names.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let scale = self.options.scale();
        self.factors.iter().filter_map(move |(name, a)| {
            let module = name.strip_suffix(FACTOR_A)?;
            let b = self.factors.get(&format!("{module}{FACTOR_B}")).ok()?;
            let weight = name.strip_prefix(WRAPPER).unwrap_or(name);
            Some(Pair { weight: weight.strip_suffix(FACTOR_A)?, projection: projection_of(name)?, a, b, scale })
        })
    }

    /// Configuration and weights as PEFT reads them, the factors in `dtype`.
    ///
    /// # Errors
    /// [`Error::Kernel`] unless `dtype` is a float type.
    pub fn files(&self, base: &str, dtype: Dtype) -> Result<[Vec<u8>; 2]> {
        let cast = self.factors.iter().map(|(name, factor)| Ok((name.to_owned(), weights::cast(factor, dtype)?)));
        let tensors = weights::to_bytes(&cast.collect::<Result<Params>>()?)?;
        Ok([config_json(&self.options, base).into_bytes(), tensors])
    }
}

impl Pair<'_> {
    /// `scale · B · A`: `[d_out, d_in]`.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the factors do not fit.
    pub fn delta(&self) -> Result<Tensor> {
        let product = kernels::gemm::linear_backward_input(self.b, self.a)?;
        let (shape, values) = (product.shape().to_vec(), product.to_f32());
        Ok(Tensor::from_f32(&shape, values.into_iter().map(|v| v * self.scale).collect())?)
    }

    /// The Frobenius norm of the update, from the factors alone.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the factors do not fit.
    pub fn norm(&self) -> Result<f64> {
        // |BA|² = tr(AAᵀ · BᵀB), both of which are [rank, rank].
        let aa = kernels::gemm::linear(self.a, self.a, None)?.to_f32();
        let (rank, b) = (self.a.rows(), self.b.to_f32());
        let mut square = 0.0;
        for i in 0..rank {
            for j in 0..rank {
                let bb: f64 = b.chunks_exact(rank).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
                square += bb * f64::from(aa[i * rank + j]);
            }
        }
        Ok(f64::from(self.scale) * square.max(0.0).sqrt())
    }
}

/// The projection in a name.
fn projection_of(name: &str) -> Option<Projection> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// The text of an `adapter_config.json`.
#[must_use]
pub(crate) fn config_json(options: &LoraOptions, base: &str) -> String {
    let targets: Vec<&str> = options.targets.iter().map(|t| t.name()).collect();
    let config = json!({
        "alpha_pattern": {},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": shortest(options.alpha),
        "lora_dropout": shortest(options.dropout),
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": options.rank,
        "rank_pattern": {},
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    format!("{config:#}\n")
}

/// The number with the fewest digits that is this one in 32 bits.
fn shortest(v: f32) -> f64 {
    v.to_string().parse().unwrap_or_else(|_| f64::from(v))
}

#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    lora_dropout: f32,
    /// A list of names, or a pattern.
    target_modules: Value,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: Value,
    #[serde(default)]
    alpha_pattern: Value,
    #[serde(default)]
    modules_to_save: Value,
    #[serde(default)]
    layers_to_transform: Value,
}

impl Raw {
    /// Reads the text of an `adapter_config.json` and refuses what this network does not compute.
    fn read(text: &str) -> Result<Self> {
        let wrong = |what: String| Error::Config(format!("{CONFIG_FILE}: {what}"));
        let raw: Self = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let empty = |v: &Value| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty);
        let unsupported = [
            (raw.peft_type != "LORA", "a peft_type other than LORA"),
            (raw.use_dora, "use_dora"),
            (raw.use_rslora, "use_rslora"),
            (raw.bias.as_deref().is_some_and(|b| b != "none"), "trained biases"),
            (!empty(&raw.rank_pattern), "rank_pattern"),
            (!empty(&raw.alpha_pattern), "alpha_pattern"),
            (!raw.modules_to_save.is_null(), "modules_to_save"),
            (!raw.layers_to_transform.is_null(), "layers_to_transform"),
        ];
        match unsupported.iter().find(|(found, _)| *found) {
            Some((_, what)) => Err(wrong(format!("{what} is not supported"))),
            None => Ok(raw),
        }
    }

    /// The settings; where a pattern chooses the targets, the factors tell which these are.
    fn options(&self, factors: &Params) -> Result<LoraOptions> {
        let wrong = |what: &str| Error::Config(format!("{CONFIG_FILE}: {what}"));
        let targets = match &self.target_modules {
            Value::Array(names) => {
                let name = |value: &Value| value.as_str().unwrap_or_default().parse::<Projection>();
                names.iter().map(name).collect::<Result<BTreeSet<_>>>()?
            }
            Value::String(_) => factors.iter().filter_map(|(name, _)| projection_of(name)).collect(),
            _ => return Err(wrong("target_modules is neither a list nor a pattern")),
        };
        let (rank, alpha, dropout) = (self.r, self.lora_alpha, self.lora_dropout);
        let options = LoraOptions { rank, alpha, dropout, targets };
        options.check()?;
        Ok(options)
    }
}
