//! The shape of a retriever.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The name of the architecture in `config.json`.
const MODEL_TYPE: &str = "lrurec";

/// The shape of an [`LruRec`](super::LruRec): what `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LruRecConfig {
    /// The architecture, always `lrurec`.
    model_type: String,
    /// The number of items of the catalogue; their ids are `1..=items`, 0 is padding.
    pub items: usize,
    /// The width of an embedding.
    pub hidden: usize,
    /// The number of blocks, each a recurrence and a feed-forward network.
    pub layers: usize,
    /// The dropout rate of training.
    pub dropout: f32,
    /// The number of most recent items that a score depends on.
    pub max_length: usize,
}

impl LruRecConfig {
    /// A checked configuration.
    ///
    /// # Errors
    /// [`Error::Config`] names what is out of its domain.
    pub fn new(items: usize, hidden: usize, layers: usize, dropout: f32, max_length: usize) -> Result<Self> {
        let config = Self { model_type: MODEL_TYPE.to_owned(), items, hidden, layers, dropout, max_length };
        config.check()?;
        Ok(config)
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if the bytes are no such file or hold something out of its domain.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(bytes).map_err(|e| Error::Config(format!("config.json: {e}")))?;
        config.check()?;
        Ok(config)
    }

    /// Writes `config.json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and a string are always valid JSON")
    }

    /// The number of classes: the items and padding.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.items + 1
    }

    /// The size of the complex state of a recurrence.
    #[must_use]
    pub fn state(&self) -> usize {
        2 * self.hidden
    }

    /// The inner width of a feed-forward network.
    #[must_use]
    pub fn feed_forward(&self) -> usize {
        4 * self.hidden
    }

    fn check(&self) -> Result<()> {
        let problem = if self.model_type != MODEL_TYPE {
            format!("model_type is `{}`, expected `{MODEL_TYPE}`", self.model_type)
        } else if self.items == 0 || self.items >= u32::MAX as usize {
            format!("items is {}, allowed are 1 to {}", self.items, u32::MAX - 1)
        } else if self.hidden == 0 || self.layers == 0 || self.max_length == 0 {
            "hidden, layers and max_length must be at least 1".to_owned()
        } else if !(0.0..1.0).contains(&self.dropout) {
            format!("dropout is {}, allowed is 0 <= dropout < 1", self.dropout)
        } else {
            return Ok(());
        };
        Err(Error::Config(problem))
    }
}
