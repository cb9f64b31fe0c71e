//! Low-rank updates in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::lora::{LoraOptions, Projection};
use crate::{Error, Result};

/// The file of the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file of the weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

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
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
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

#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    lora_dropout: f32,
    target_modules: Vec<String>,
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

/// Reads the text of an `adapter_config.json`.
///
/// # Errors
/// [`Error::Config`] if it cannot be read or uses what this network does not compute.
pub(crate) fn options_from_json(text: &str) -> Result<LoraOptions> {
    let wrong = |what: String| Error::Config(format!("{CONFIG_FILE}: {what}"));
    let raw: Raw = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
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
    if let Some((_, what)) = unsupported.iter().find(|(found, _)| *found) {
        return Err(wrong(format!("{what} is not supported")));
    }
    let targets = raw.target_modules.iter().map(|name| name.parse::<Projection>());
    let targets = targets.collect::<Result<BTreeSet<_>>>()?;
    let options = LoraOptions { rank: raw.r, alpha: raw.lora_alpha, dropout: raw.lora_dropout, targets };
    options.check()?;
    Ok(options)
}
