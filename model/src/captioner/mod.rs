//! The captioner: BLIP-2 with an OPT decoder. A picture goes in, a sentence comes out.
//!
//! A vision tower makes features of patches, the Q-Former's queries gather what matters in them, a projection turns these
//! into what the decoder takes for the beginning of a text, and the decoder writes on, always the likeliest token next.
//!
//! # What a caption depends on
//! On the picture and the model alone, to the last bit: not on the other pictures of a batch, their order, or the number of
//! threads.
//!
//! # Source
//! Li et al., "BLIP-2", 2023; Fang et al., "EVA", 2022; Zhang et al., "OPT", 2022. Compared with the `transformers` library
//! in the parity tests.

mod block;
mod config;
mod decoder;
mod linear;
pub mod picture;
mod pixels;
mod qformer;
#[cfg(test)]
mod tests;
mod vision;

use std::ops::Range;
use std::path::Path;

use kernels::{Device, Tensor, rows};
use tokenizers::Tokenizer;

pub use config::{BlipConfig, DecoderConfig, QFormerConfig, VisionConfig};
pub use pixels::Pixels;

use crate::{
    Error, Precision, Result,
    checkpoint::{Checkpoint, TensorSource},
};
use decoder::Decoder;
use linear::{Linear, Loader};
use qformer::QFormer;
use vision::Vision;

/// About as many rows go through the vision tower together: enough to be worth the weights, and few enough that what lies
/// between its layers stays in the processor's caches.
const ROWS_TOGETHER: usize = 2048;

/// BLIP-2, ready to describe pictures.
#[derive(Debug)]
pub struct Captioner {
    config: BlipConfig,
    vision: Vision,
    qformer: QFormer,
    projection: Linear,
    decoder: Decoder,
    tokenizer: Tokenizer,
}

/// How long a caption may get and what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The most tokens of a caption.
    pub max_tokens: usize,
    /// The tokens that end one.
    pub ends: Vec<u32>,
}

/// What the networks make of pictures on the way to captions, for comparisons.
#[derive(Debug)]
pub struct Features {
    /// Of every patch, after the vision tower: `[pictures * (patches + 1), vision hidden]`.
    pub patches: Tensor,
    /// Of every query, after the Q-Former: `[pictures * queries, query hidden]`.
    pub queries: Tensor,
    /// What the decoder reads: `[pictures * queries, decoder hidden]`.
    pub prefix: Tensor,
}

impl Captioner {
    /// Loads a HF folder to a device: `config.json`, weights, `tokenizer.json` and, if there is one, `generation_config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] for another architecture, by name; [`Error::Io`], [`Error::Safetensors`],
    /// [`Error::MissingTensor`], [`Error::TensorShape`] and [`Error::Tokenizer`] for what is missing or broken.
    pub fn load(folder: &Path, precision: Precision, device: &Device) -> Result<Self> {
        let (config, checkpoint) = (BlipConfig::load(folder)?, Checkpoint::open(folder)?);
        Self::from_source(config, &checkpoint, read_tokenizer(folder)?, precision, device)
    }

    /// What is wrong with a HF folder, as far as headers tell, before minutes are spent on loading it.
    ///
    /// # Errors
    /// As [`Captioner::load`].
    pub fn check(folder: &Path) -> Result<BlipConfig> {
        let config = BlipConfig::load(folder)?;
        read_tokenizer(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        for (name, shape) in landmarks(&config) {
            checkpoint.check(&name, &shape)?;
        }
        Ok(config)
    }

    /// A captioner from weights of any source.
    ///
    /// # Errors
    /// As [`Captioner::load`].
    pub fn from_source(
        config: BlipConfig,
        source: &dyn TensorSource,
        tokenizer: Tokenizer,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let loader = Loader { source, precision, device };
        let (vision, qformer) = (Vision::load(&config.vision, &loader)?, QFormer::load(&config, &loader)?);
        let projection =
            loader.linear("language_projection", config.decoder.hidden_size, config.qformer.hidden_size)?;
        let decoder = Decoder::load(&config.decoder, &loader)?;
        Ok(Self { config, vision, qformer, projection, decoder, tokenizer })
    }

    /// Sizes and special tokens.
    #[must_use]
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// The text of every picture, without the space around it.
    ///
    /// # Shapes
    /// Those of [`Pixels`].
    ///
    /// # Errors
    /// [`Error::Input`] for pictures of another size, or if the decoder has too few positions for the caption's length.
    pub fn caption<'a>(&self, pixels: impl Into<Pixels<'a>>, max_tokens: usize) -> Result<Vec<String>> {
        let generation = Generation { max_tokens, ends: self.config.ends.clone() };
        let tokens = self.generate(pixels, &generation)?;
        tokens.iter().map(|tokens| self.text(tokens)).collect()
    }

    /// The likeliest tokens, one after the other, without those that end a caption.
    ///
    /// # Errors
    /// As [`Captioner::caption`].
    pub fn generate<'a>(&self, pixels: impl Into<Pixels<'a>>, generation: &Generation) -> Result<Vec<Vec<u32>>> {
        let prefix = self.prefix(pixels.into())?;
        self.decoder.generate(prefix, self.config.queries, self.config.begin, generation)
    }

    /// What the networks before the decoder make of pictures.
    ///
    /// # Errors
    /// [`Error::Input`] for pictures of another size.
    pub fn features<'a>(&self, pixels: impl Into<Pixels<'a>>) -> Result<Features> {
        let pixels = pixels.into();
        self.look(pixels, 0..pixels.count(self.config.vision.image_size)?)
    }

    /// What the decoder reads of all pictures: `[pictures * queries, decoder hidden]`.
    fn prefix(&self, pixels: Pixels<'_>) -> Result<Tensor> {
        let pictures = pixels.count(self.config.vision.image_size)?;
        // As few parts as may be, and all of about one size.
        let parts = pictures.div_ceil((ROWS_TOGETHER / self.config.vision.rows()).max(1)).max(1);
        let together = pictures.div_ceil(parts).max(1);
        let parts = (0..pictures).step_by(together).map(|from| from..(from + together).min(pictures));
        let parts = parts.map(|part| Ok(self.look(pixels, part)?.prefix)).collect::<Result<Vec<_>>>()?;
        if parts.is_empty() {
            return Ok(Tensor::zeros(&[0, self.config.decoder.hidden_size]));
        }
        Ok(rows::concat(&parts)?)
    }

    /// What the networks before the decoder make of some of the pictures.
    fn look(&self, pixels: Pixels<'_>, pictures: Range<usize>) -> Result<Features> {
        let patches = pixels.patches(pictures, self.config.vision.patch_size, self.vision.place())?;
        let patches = self.vision.forward(&patches)?;
        let queries = self.qformer.forward(&patches, self.config.vision.rows())?;
        let prefix = self.projection.forward(&queries)?;
        Ok(Features { patches, queries, prefix })
    }

    /// The logits of the first token of every picture's caption: `[pictures, vocabulary]`.
    ///
    /// # Errors
    /// As [`Captioner::caption`].
    pub fn first_logits<'a>(&self, pixels: impl Into<Pixels<'a>>) -> Result<Tensor> {
        let prefix = self.prefix(pixels.into())?;
        Ok(self.decoder.begin(prefix, self.config.queries, self.config.begin, 1)?.1)
    }

    fn text(&self, tokens: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(tokens, true).map_err(|e| Error::Tokenizer(format!("decoding: {e}")))?;
        Ok(text.trim().to_owned())
    }
}

/// Tensors that are there, in these shapes, if the networks are as deep and wide as the configuration says.
fn landmarks(config: &BlipConfig) -> [(String, Vec<usize>); 4] {
    let (vision, qformer, decoder) = (&config.vision, &config.qformer, &config.decoder);
    let last = |layers: usize| layers.saturating_sub(1);
    let encoder = format!("vision_model.encoder.layers.{}.mlp.fc1.weight", last(vision.layers));
    let queries = format!("qformer.encoder.layer.{}.intermediate_query.dense.weight", last(qformer.layers));
    let writer = format!("language_model.model.decoder.layers.{}.fc1.weight", last(decoder.layers));
    [
        (decoder::EMBEDDINGS.to_owned(), vec![decoder.vocab_size, decoder.hidden_size]),
        (encoder, vec![vision.intermediate_size, vision.hidden_size]),
        (queries, vec![qformer.intermediate_size, qformer.hidden_size]),
        (writer, vec![decoder.intermediate_size, decoder.hidden_size]),
    ]
}

fn read_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
    Tokenizer::from_bytes(&bytes).map_err(|e| Error::Tokenizer(format!("{}: {e}", path.display())))
}
