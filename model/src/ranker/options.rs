//! How a ranker is held in memory and what of it is trained.

use super::lora::LoraOptions;
use crate::{Error, Precision, Result};

/// The form of the frozen linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Dense floats of the precision.
    None,
    /// Four bits, double quantisation.
    Nf4,
}

/// When four-bit weights are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dequantize {
    /// Once, if the decoded weights fit into half of the memory that is free, or into 2 GiB where nobody says how much is.
    Auto,
    /// Once: fast, 4 bytes a weight, or 2 in bfloat16.
    Once,
    /// Tile by tile at every use: slow, half a byte a weight.
    PerUse,
}

/// What training changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Trainable {
    /// Low-rank updates; the base is frozen.
    Lora(LoraOptions),
    /// Every weight.
    Full,
    /// Nothing: the ranker only scores.
    Nothing,
}

/// The settings of a [`super::Ranker`].
#[derive(Clone, Debug, PartialEq)]
pub struct RankerOptions {
    /// The form of the frozen linear layers.
    pub quantize: Quantize,
    /// When four-bit weights are decoded.
    pub dequantize: Dequantize,
    /// What products are made of, and what frozen linear layers are held in where not in four bits. The residual stream, norms,
    /// what is trained and its gradients are f32.
    pub precision: Precision,
    /// What training changes.
    pub trainable: Trainable,
    /// The seed of initial values and of dropout.
    pub seed: u64,
    /// The longest sequence in tokens; position tables are made for it.
    pub max_tokens: usize,
    /// Sequences are computed together up to this many tokens; at least one sequence is. It changes memory and time;
    /// scores keep their bits, gradients change in the last ones only.
    pub micro_batch_tokens: usize,
    /// The most memory of activations that are kept for the backward pass, if that much is free; where it does not do, layers
    /// compute some of theirs again. It changes memory and time, and no bit of the result.
    pub activation_bytes: usize,
    /// Gradients are scaled down to this global norm; `None` leaves them.
    pub max_grad_norm: Option<f64>,
}

impl Default for RankerOptions {
    fn default() -> Self {
        Self {
            quantize: Quantize::Nf4,
            dequantize: Dequantize::Auto,
            precision: Precision::F32,
            trainable: Trainable::Lora(LoraOptions::default()),
            seed: 42,
            max_tokens: 2048,
            micro_batch_tokens: 2048,
            activation_bytes: usize::MAX,
            max_grad_norm: Some(1.0),
        }
    }
}

impl RankerOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        match &self.trainable {
            Trainable::Lora(lora) => lora.check(),
            Trainable::Full if self.quantize == Quantize::Nf4 => Err(Error::Config(
                "ranker.trainable = \"full\" needs ranker.quantize = \"none\": four-bit weights are frozen".to_owned(),
            )),
            Trainable::Full if self.precision == Precision::Bf16 => Err(Error::Config(
                "ranker.trainable = \"full\" needs ranker.precision = \"f32\": what is trained is multiplied as it is"
                    .to_owned(),
            )),
            Trainable::Full | Trainable::Nothing => Ok(()),
        }
    }
}
