//! A HF `tokenizer.json`: text to tokens and back, and titles cut to a number of tokens.

mod clean;
mod lines;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokenizers::{Decoder, Tokenizer};

use crate::{Error, Result};
use clean::Cleaner;
use lines::Lines;

/// A tokenizer and the tokens that begin and end a text.
#[derive(Debug)]
pub struct RankerTokenizer {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: u32,
    cleaner: Cleaner,
    /// Where texts may be taken line by line.
    lines: Option<Lines>,
    /// Texts that were cut already; items appear in many prompts.
    cuts: Mutex<HashMap<(usize, String), Arc<str>>>,
    /// Those of them that were not clean.
    cleaned: AtomicU64,
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
        let this = Self::from_bytes(&bytes, config.bos_token, eos)?;
        let (tokens, rows) = (this.tokenizer.get_vocab_size(false), config.vocab_size);
        let of_config = config.bos_token.into_iter().chain(config.eos_tokens.iter().copied()).max().unwrap_or(0);
        if tokens > rows || of_config as usize >= rows {
            let what = format!("{} has {tokens} tokens", path.display());
            return Err(Error::Tokenizer(format!(
                "{what} and config.json names token {of_config}, but the network has {rows}: they belong to different checkpoints"
            )));
        }
        Ok(this)
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
        let markers = tokenizer.get_added_tokens_decoder();
        // Words that somebody has added stay words.
        let is_mark =
            |text: &str| [("<", ">"), ("[", "]")].iter().any(|(a, z)| text.starts_with(a) && text.ends_with(z));
        let markers = markers.into_values().filter(|token| token.special || is_mark(token.content.trim()));
        let cleaner = Cleaner::new(markers.map(|token| token.content));
        let lines = Lines::of(&tokenizer);
        Ok(Self { tokenizer, bos, eos, cleaner, lines, cuts: Mutex::default(), cleaned: AtomicU64::new(0) })
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

    /// The tokens of a text, without a beginning or an end added. Lines that were asked for lately are remembered, where the
    /// tokenizer is one whose lines are tokenised alike in any text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(lines) = &self.lines
            && let Some(ids) = lines.encode(&self.tokenizer, text).map_err(|e| wrong("encoding", &e))?
        {
            return Ok(ids);
        }
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

    /// The texts that [`RankerTokenizer::cut`] had to clean so far, each counted once.
    #[must_use]
    pub fn cleaned(&self) -> u64 {
        self.cleaned.load(Ordering::Relaxed)
    }

    /// The first `limit` tokens of an item's text as text again, cleaned: what the tokenizer takes for a token with a meaning of
    /// its own, such as the end of a text, is read as ordinary characters, and characters that nobody sees are left out. A
    /// character that the cut splits becomes U+FFFD.
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
        let clean = self.cleaner.clean(text);
        let encoding = self.tokenizer.encode(&*clean, false).map_err(|e| wrong("encoding", &e))?;
        let tokens = encoding.get_tokens();
        let kept = tokens[..tokens.len().min(limit)].to_vec();
        let cut: Arc<str> = match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(kept).map_err(|e| wrong("decoding", &e))?.into(),
            None => kept.join(" ").into(),
        };
        let known = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&cut));
        if known.is_none() && *clean != *text {
            self.cleaned.fetch_add(1, Ordering::Relaxed);
        }
        Ok(cut)
    }
}

fn wrong(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Tokenizer(format!("{what}: {error}"))
}
