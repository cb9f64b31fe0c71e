//! A HF `tokenizer.json`: text to tokens and back, and titles cut to a number of tokens.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokenizers::{Decoder, Tokenizer};

use crate::{Error, Result};

/// A tokenizer and the tokens that begin and end a text.
#[derive(Debug)]
pub struct RankerTokenizer {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: u32,
    /// Texts that were cut already; items appear in many prompts.
    cuts: Mutex<HashMap<(usize, String), Arc<str>>>,
}

impl RankerTokenizer {
    /// Reads `tokenizer.json` of a HF folder; the first and last tokens come from the network's configuration.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; else as [`RankerTokenizer::from_bytes`].
    pub fn load(folder: &Path, config: &super::LlamaConfig) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        let eos = config.eos_tokens.first().copied();
        let eos =
            eos.ok_or_else(|| Error::Config("config.json has no eos_token_id, which training needs".to_owned()))?;
        Self::from_bytes(&bytes, config.bos_token, eos)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the bytes are none.
    pub fn from_bytes(bytes: &[u8], bos: Option<u32>, eos: u32) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| wrong("tokenizer.json", &e))?;
        // Lengths are this crate's business: settings of the file would cut prompts without a word.
        tokenizer.with_truncation(None).map_err(|e| wrong("tokenizer.json", &e))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, bos, eos, cuts: Mutex::new(HashMap::new()) })
    }

    /// The token that begins a text, for models that have one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The tokens of a text, without a beginning or an end added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| wrong("encoding", &e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text that token ids stand for, special ones included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, false).map_err(|e| wrong("decoding", &e))
    }

    /// The first `limit` tokens of a text as text again. A character that the cut splits becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot take the text.
    pub fn cut(&self, text: &str, limit: usize) -> Result<Arc<str>> {
        if text.is_empty() {
            return Ok(Arc::from(""));
        }
        let key = (limit, text.to_owned());
        if let Some(done) = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(done));
        }
        let encoding = self.tokenizer.encode(text, false).map_err(|e| wrong("encoding", &e))?;
        let tokens = encoding.get_tokens();
        let kept = tokens[..tokens.len().min(limit)].to_vec();
        let cut: Arc<str> = match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(kept).map_err(|e| wrong("decoding", &e))?.into(),
            None => kept.join(" ").into(),
        };
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&cut));
        Ok(cut)
    }
}

fn wrong(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Tokenizer(format!("{what}: {error}"))
}
