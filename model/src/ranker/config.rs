//! The `config.json` of a Llama-family checkpoint, in its newest and its older form.

#[cfg(test)]
mod tests;

use kernels::{attention, rope};
use serde::Deserialize;

use crate::{Error, Result};

/// The model types that this network computes.
const SUPPORTED: [&str; 3] = ["llama", "mistral", "qwen2"];

/// Sizes and switches of a Llama-family network.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// `llama`, `mistral` or `qwen2`.
    pub model_type: String,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Features of a token between the layers.
    pub hidden_size: usize,
    /// Features inside of the gated block.
    pub intermediate_size: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f32,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub out_bias: bool,
    /// Whether the gated block has biases.
    pub mlp_bias: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: rope::Scaling,
    /// The longest sequence that the checkpoint was made for.
    pub max_positions: usize,
    /// A row sees at most this many rows; longer sequences are refused.
    pub sliding_window: Option<usize>,
    /// The token that begins a text.
    pub bos_token: Option<u32>,
    /// The tokens that end a text; the first one is trained.
    pub eos_tokens: Vec<u32>,
}

impl LlamaConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be read, names a model type, activation or rotary scaling that is not supported,
    /// or has sizes that do not fit together.
    pub fn from_json(text: &str) -> Result<Self> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| Error::Config(format!("config.json: {e}")))?;
        raw.checked()
    }

    /// Heads of attention, as the operation takes them.
    #[must_use]
    pub fn attention(&self) -> attention::Shape {
        attention::Shape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    /// Rotary embedding, as the operation takes it.
    #[must_use]
    pub fn rope(&self) -> rope::Config {
        rope::Config { head_dim: self.head_dim, theta: self.rope_theta, scaling: self.rope_scaling }
    }

    /// The longest sequence that this network computes as the checkpoint means it.
    #[must_use]
    pub fn longest_sequence(&self) -> usize {
        self.max_positions.min(self.sliding_window.unwrap_or(usize::MAX))
    }
}

/// One id or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

/// Rotary settings; the older form calls the kind `type` and keeps theta outside.
#[derive(Default, Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    #[serde(default = "default_positions")]
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
    quantization_config: Option<RawQuantization>,
}

/// How the weights of a checkpoint are packed; which of them are is told by the weights themselves.
#[derive(Deserialize)]
struct RawQuantization {
    #[serde(default)]
    quant_method: String,
    #[serde(default)]
    load_in_8bit: bool,
    #[serde(default)]
    bnb_4bit_quant_type: String,
}

fn default_eps() -> f32 {
    1e-6
}

fn default_activation() -> String {
    "silu".to_owned()
}

fn default_positions() -> usize {
    2048
}

impl RawQuantization {
    fn check(&self) -> Result<()> {
        let packing = match self.quant_method.as_str() {
            "" | "bitsandbytes" if self.load_in_8bit => "bitsandbytes in eight bits",
            "" | "bitsandbytes" if self.bnb_4bit_quant_type == "nf4" => return Ok(()),
            "" | "bitsandbytes" => "bitsandbytes in FP4",
            other => other,
        };
        Err(Error::Config(format!(
            "the checkpoint is quantised by {packing}, which is not read: take NF4 of bitsandbytes, or the checkpoint before \
             it was quantised, which ranker.quantize = \"nf4\" packs while it is read"
        )))
    }
}

impl Raw {
    fn checked(self) -> Result<LlamaConfig> {
        if !SUPPORTED.contains(&self.model_type.as_str()) {
            let known = SUPPORTED.join(", ");
            return Err(Error::Config(format!(
                "model type `{}` is not supported; supported are {known}",
                self.model_type
            )));
        }
        if self.hidden_act != "silu" {
            return Err(Error::Config(format!("activation `{}` is not supported; supported is silu", self.hidden_act)));
        }
        if let Some(raw) = &self.quantization_config {
            raw.check()?;
        }
        if self.num_hidden_layers == 0 {
            return Err(Error::Config("config.json: num_hidden_layers is 0".to_owned()));
        }
        let (rope_theta, rope_scaling) = self.rope()?;
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads.max(1));
        if heads == 0
            || kv_heads == 0
            || !heads.is_multiple_of(kv_heads)
            || !head_dim.is_multiple_of(2)
            || head_dim == 0
        {
            let sizes = format!("{heads} heads of {head_dim} features over {kv_heads} key-value heads");
            return Err(Error::Config(format!("{sizes}: the latter must divide the former, features must be even")));
        }
        let qwen = self.model_type == "qwen2";
        let windowed = self.use_sliding_window.unwrap_or(!qwen);
        Ok(LlamaConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: self.rms_norm_eps,
            tied_embeddings: self.tie_word_embeddings,
            qkv_bias: qwen || self.attention_bias,
            out_bias: !qwen && self.attention_bias,
            mlp_bias: self.mlp_bias,
            rope_theta,
            rope_scaling,
            max_positions: self.max_position_embeddings,
            sliding_window: self.sliding_window.filter(|_| windowed),
            bos_token: self.bos_token_id,
            eos_tokens: match self.eos_token_id {
                Some(Ids::One(id)) => vec![id],
                Some(Ids::Many(ids)) => ids,
                None => Vec::new(),
            },
            model_type: self.model_type,
        })
    }

    fn rope(&self) -> Result<(f64, rope::Scaling)> {
        let default = RawRope::default();
        let raw = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()).unwrap_or(&default);
        let theta = raw.rope_theta.or(self.rope_theta).unwrap_or(10_000.0);
        if raw.partial_rotary_factor.is_some_and(|f| f != 1.0) {
            return Err(Error::Config("partial rotary embedding is not supported".to_owned()));
        }
        let need = |value: Option<f64>, key: &str| {
            value.ok_or_else(|| Error::Config(format!("rotary scaling needs the key `{key}`")))
        };
        let scaling = match raw.rope_type.as_deref().unwrap_or("default") {
            "default" => rope::Scaling::None,
            "linear" => rope::Scaling::Linear { factor: need(raw.factor, "factor")? },
            "llama3" => rope::Scaling::Llama3 {
                factor: need(raw.factor, "factor")?,
                low_freq_factor: need(raw.low_freq_factor, "low_freq_factor")?,
                high_freq_factor: need(raw.high_freq_factor, "high_freq_factor")?,
                original_max_positions: need(raw.original_max_position_embeddings, "original_max_position_embeddings")?,
            },
            other => {
                let known = "default, linear, llama3";
                return Err(Error::Config(format!("rotary scaling `{other}` is not supported; supported are {known}")));
            }
        };
        Ok((theta, scaling))
    }
}
