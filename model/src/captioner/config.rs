//! The `config.json` of a BLIP-2 checkpoint. What a file leaves out has the library's own default.

#[cfg(test)]
mod tests;

use std::path::Path;

use kernels::attention;
use serde::Deserialize;

use crate::{Error, Result};

/// Sizes and special tokens of all four networks.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The Q-Former.
    pub qformer: QFormerConfig,
    /// The decoder.
    pub decoder: DecoderConfig,
    /// How many queries look at a picture.
    pub queries: usize,
    /// The token that a caption begins behind.
    pub begin: u32,
    /// The tokens that end a caption.
    pub ends: Vec<u32>,
}

/// Sizes of the vision tower.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Features of a token between the layers.
    pub hidden_size: usize,
    /// Features inside of a layer.
    pub intermediate_size: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    /// Heads of attention.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Pixels of a picture's side.
    pub image_size: usize,
    /// Pixels of a patch's side.
    pub patch_size: usize,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Added to a variance before its root.
    #[serde(rename = "layer_norm_eps")]
    pub eps: f32,
    hidden_act: String,
}

/// Sizes of the Q-Former.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Features of a query between the layers.
    pub hidden_size: usize,
    /// Features inside of a layer.
    pub intermediate_size: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    /// Heads of attention.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Every so many layers, from the first on, look at the picture.
    pub cross_attention_frequency: usize,
    /// Added to a variance before its root.
    #[serde(rename = "layer_norm_eps")]
    pub eps: f32,
    hidden_act: String,
    encoder_hidden_size: usize,
    use_qformer_text_input: bool,
}

/// Sizes of the decoder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct DecoderConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Features of a token between the layers.
    pub hidden_size: usize,
    /// Features inside of a layer.
    #[serde(rename = "ffn_dim")]
    pub intermediate_size: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    /// Heads of attention.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// The longest text, the picture's part included.
    #[serde(rename = "max_position_embeddings")]
    pub max_positions: usize,
    /// Whether the output projection is the embedding table.
    #[serde(rename = "tie_word_embeddings")]
    pub tied_embeddings: bool,
    /// Added to a variance before its root.
    #[serde(skip, default = "opt_eps")]
    pub eps: f32,
    model_type: String,
    activation_function: String,
    do_layer_norm_before: bool,
    word_embed_proj_dim: Option<usize>,
    enable_bias: bool,
    layer_norm_elementwise_affine: bool,
    #[serde(rename = "_remove_final_layer_norm")]
    remove_final_layer_norm: bool,
    bos_token_id: u32,
    eos_token_id: Ids,
}

/// One id or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    #[serde(default)]
    vision_config: VisionConfig,
    #[serde(default)]
    qformer_config: QFormerConfig,
    #[serde(default)]
    text_config: DecoderConfig,
    #[serde(default = "public_queries")]
    num_query_tokens: usize,
}

/// What decides between texts, if the checkpoint brings it along.
#[derive(Deserialize)]
struct GenerationFile {
    eos_token_id: Option<Ids>,
}

fn public_queries() -> usize {
    32
}

fn opt_eps() -> f32 {
    1e-5
}

impl BlipConfig {
    /// Reads `config.json` of a HF folder, and the tokens that end a text from `generation_config.json` if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file that cannot be read; else as [`BlipConfig::from_json`].
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })
        };
        let mut config = Self::from_json(&read("config.json")?)?;
        if folder.join("generation_config.json").exists() {
            let file: GenerationFile = serde_json::from_str(&read("generation_config.json")?)
                .map_err(|e| Error::Config(format!("generation_config.json: {e}")))?;
            config.ends = file.eos_token_id.map_or(config.ends, Ids::list);
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be read, is of another architecture, or has sizes that do not fit together.
    pub fn from_json(text: &str) -> Result<Self> {
        // The kind comes first: of another model even the types of fields may differ.
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| Error::Config(format!("config.json: {e}")))?;
        check_kind(&value)?;
        let raw: Raw = serde_json::from_value(value).map_err(|e| Error::Config(format!("config.json: {e}")))?;
        let (begin, ends) = (raw.text_config.bos_token_id, raw.text_config.eos_token_id.clone().list());
        let config = Self {
            vision: raw.vision_config,
            qformer: raw.qformer_config,
            decoder: raw.text_config,
            queries: raw.num_query_tokens,
            begin,
            ends,
        };
        config.check(&raw.model_type)?;
        Ok(config)
    }

    fn check(&self, model_type: &str) -> Result<()> {
        let (v, q, d) = (&self.vision, &self.qformer, &self.decoder);
        let divides = |heads: usize, hidden: usize| heads > 0 && hidden > 0 && hidden.is_multiple_of(heads);
        let wrong = [
            (v.hidden_act != "gelu", "vision_config.hidden_act must be gelu"),
            (q.hidden_act != "gelu", "qformer_config.hidden_act must be gelu"),
            (q.use_qformer_text_input, "a Q-Former that reads text (InstructBLIP) is not supported"),
            (q.cross_attention_frequency == 0, "qformer_config.cross_attention_frequency is 0"),
            (q.encoder_hidden_size != v.hidden_size, "the Q-Former is made for another vision tower"),
            (d.activation_function != "relu", "text_config.activation_function must be relu"),
            (!d.do_layer_norm_before, "text_config.do_layer_norm_before must be true"),
            (!d.enable_bias, "text_config.enable_bias must be true"),
            (!d.layer_norm_elementwise_affine, "text_config.layer_norm_elementwise_affine must be true"),
            (d.remove_final_layer_norm, "text_config._remove_final_layer_norm must be false"),
            (
                d.word_embed_proj_dim.is_some_and(|w| w != d.hidden_size),
                "text_config.word_embed_proj_dim must be hidden_size",
            ),
            (!divides(v.heads, v.hidden_size), "vision_config: the heads do not divide hidden_size"),
            (!divides(q.heads, q.hidden_size), "qformer_config: the heads do not divide hidden_size"),
            (!divides(d.heads, d.hidden_size), "text_config: the heads do not divide hidden_size"),
            (!divides(v.patch_size, v.image_size), "vision_config.patch_size does not divide image_size"),
            (self.queries == 0, "num_query_tokens is 0"),
            (v.image_size > 1 << 14, "vision_config.image_size is beyond all pictures"),
            (d.max_positions > 1 << 24, "text_config.max_position_embeddings is beyond all texts"),
            (self.begin as usize >= d.vocab_size, "text_config.bos_token_id is beyond the vocabulary"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Error::Config(format!("{model_type} checkpoint: {what}"))),
            None => Ok(()),
        }
    }
}

/// Refuses what is not BLIP-2 with an OPT decoder, by name.
fn check_kind(config: &serde_json::Value) -> Result<()> {
    let name = |value: &serde_json::Value| value.as_str().unwrap_or("nothing").to_owned();
    let kind = name(&config["model_type"]);
    if kind != "blip-2" {
        return Err(Error::Config(format!("model_type is {kind}; captions are made by blip-2 with an OPT decoder")));
    }
    let decoder = config["text_config"].get("model_type").map_or_else(|| "opt".to_owned(), name);
    if decoder != "opt" || config["use_decoder_only_language_model"] == false {
        let decoder = if decoder == "opt" { "encoder-decoder" } else { &decoder };
        return Err(Error::Config(format!(
            "this BLIP-2 has a {decoder} decoder (as blip2-flan-t5 has); use one with OPT, such as blip2-opt-2.7b or blip2-opt-6.7b"
        )));
    }
    Ok(())
}

impl VisionConfig {
    /// Tokens of a picture: one for every patch and one for the whole.
    #[must_use]
    pub fn rows(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// Heads of attention, as the operation takes them.
    pub(super) fn attention(&self) -> attention::Shape {
        heads(self.heads, self.hidden_size)
    }
}

impl QFormerConfig {
    /// As [`VisionConfig::attention`].
    pub(super) fn attention(&self) -> attention::Shape {
        heads(self.heads, self.hidden_size)
    }
}

impl DecoderConfig {
    /// As [`VisionConfig::attention`].
    pub(super) fn attention(&self) -> attention::Shape {
        heads(self.heads, self.hidden_size)
    }
}

fn heads(heads: usize, hidden: usize) -> attention::Shape {
    attention::Shape { heads, kv_heads: heads, head_dim: hidden / heads }
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1408,
            intermediate_size: 6144,
            layers: 39,
            heads: 16,
            image_size: 224,
            patch_size: 14,
            qkv_bias: true,
            eps: 1e-6,
            hidden_act: "gelu".to_owned(),
        }
    }
}

impl Default for QFormerConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            layers: 12,
            heads: 12,
            cross_attention_frequency: 2,
            eps: 1e-12,
            hidden_act: "gelu".to_owned(),
            encoder_hidden_size: 1408,
            use_qformer_text_input: false,
        }
    }
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50_272,
            hidden_size: 768,
            intermediate_size: 3072,
            layers: 12,
            heads: 12,
            max_positions: 2048,
            tied_embeddings: true,
            eps: opt_eps(),
            model_type: "opt".to_owned(),
            activation_function: "relu".to_owned(),
            do_layer_norm_before: true,
            word_embed_proj_dim: None,
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            remove_final_layer_norm: false,
            bos_token_id: 2,
            eos_token_id: Ids::One(2),
        }
    }
}
