//! Captions with random weights, of a checkpoint's real shape.

use anyhow::Result;
use kernels::{Device, Tensor};
use model::Precision;
use model::captioner::{BlipConfig, Captioner, Generation};
use model::checkpoint::TensorSource;

use super::super::noise::{self, Stock};
use super::Ready;

/// Token ids are made, and no text is decoded.
const TOKENIZER: &str = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}"#;
/// The size of the weights.
const DEVIATION: f32 = 0.02;

/// A captioner and pictures.
pub(super) struct Captions {
    captioner: Captioner,
    pixels: Tensor, // [images, 3, side, side]
    generation: Generation,
}

impl Captions {
    pub(super) fn new(config: &str, images: usize, tokens: usize, device: &Device) -> Result<Self> {
        let config = BlipConfig::from_json(config)?;
        let side = config.vision.image_size;
        let tokenizer = TOKENIZER.parse().map_err(|e| anyhow::anyhow!("the tokenizer of the bench: {e}"))?;
        let weights = Weights(Stock::new(1));
        Ok(Self {
            captioner: Captioner::from_source(config, &weights, tokenizer, Precision::Bf16, device)?,
            pixels: noise::tensor(2, &[images, 3, side, side], 1.0)?,
            // Nothing ends a caption before its time.
            generation: Generation { max_tokens: tokens, ends: Vec::new() },
        })
    }
}

impl Ready for Captions {
    fn run(&mut self, _turn: usize) -> Result<()> {
        let tokens = self.captioner.generate(&self.pixels, &self.generation)?;
        anyhow::ensure!(
            tokens.iter().all(|t| t.len() == self.generation.max_tokens),
            "a caption ended before its time"
        );
        Ok(())
    }

    /// The parity tests compare captions; with random weights the likeliest of nearly equal tokens means nothing.
    fn error(&mut self) -> Result<Option<f64>> {
        self.run(0)?;
        Ok(None)
    }
}

/// Weights of any name and shape.
struct Weights(Stock);

impl TensorSource for Weights {
    fn tensor(&self, name: &str) -> model::Result<Tensor> {
        Err(model::Error::MissingTensor { name: name.to_owned() })
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> model::Result<Tensor> {
        // Gains around one, all else around zero.
        let mean = if name.to_lowercase().contains("norm") && name.ends_with(".weight") { 1.0 } else { 0.0 };
        let key = name.bytes().fold(0, |key: u64, byte| key.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Ok(Tensor::from_f32(shape, self.0.take(key, shape.iter().product(), DEVIATION, mean))?)
    }
}
