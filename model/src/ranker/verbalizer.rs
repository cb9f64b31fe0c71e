//! Which token stands for which candidate: the one that really follows the prompt.

#[cfg(test)]
mod tests;

use super::tokenizer::RankerTokenizer;
use crate::{Error, Result};

/// How candidates are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelStyle {
    /// A, B, C, … Z.
    Letters,
    /// 1, 2, 3, …
    Numbers,
}

impl LabelStyle {
    /// The label of candidate `i`, counted from 0.
    #[must_use]
    pub fn label(self, i: usize) -> String {
        match self {
            Self::Letters => char::from(b'A' + (i % 26) as u8).to_string(),
            Self::Numbers => (i + 1).to_string(),
        }
    }

    /// Refuses more candidates than there are labels.
    ///
    /// # Errors
    /// [`Error::Labels`] naming both numbers.
    pub fn check(self, candidates: usize) -> Result<()> {
        if self == Self::Letters && candidates > 26 {
            return Err(Error::Labels(format!(
                "{candidates} candidates, but letters label at most 26; set ranker.labels = \"numbers\", ranker.window or \
                 retriever.candidates to 26 or less"
            )));
        }
        Ok(())
    }
}

/// The tokens of the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbalizer {
    tokens: Vec<u32>,
}

impl Verbalizer {
    /// Finds the token of every label: what the tokenizer appends when the label is appended to a prompt. A label alone
    /// often has another token (with a space before it) than one that follows a line break.
    ///
    /// `prompt` is any prompt of the template; only its end matters.
    ///
    /// # Errors
    /// [`Error::Labels`] for too many candidates, a label of several tokens, one that changes the prompt's own tokens, or
    /// two labels with one token. The message names the label, the tokens and what to do.
    pub fn new(tokenizer: &RankerTokenizer, prompt: &str, style: LabelStyle, candidates: usize) -> Result<Self> {
        style.check(candidates)?;
        let before = tokenizer.encode(prompt)?;
        let mut tokens: Vec<u32> = Vec::with_capacity(candidates);
        for i in 0..candidates {
            let label = style.label(i);
            let after = tokenizer.encode(&format!("{prompt}{label}"))?;
            let token = match after.strip_prefix(before.as_slice()) {
                Some(&[token]) => token,
                Some(found) => return Err(several(&label, found)),
                None => return Err(merged(&label, &before, &after)),
            };
            if let Some(other) = tokens.iter().position(|&t| t == token) {
                let other = style.label(other);
                return Err(Error::Labels(format!(
                    "labels `{other}` and `{label}` are both token {token} behind the prompt; use fewer candidates or \
                     another ranker.labels"
                )));
            }
            tokens.push(token);
        }
        Ok(Self { tokens })
    }

    /// The tokens in the order of the labels.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

fn several(label: &str, found: &[u32]) -> Error {
    Error::Labels(format!(
        "label `{label}` is {} tokens {found:?} behind the prompt, but a label must be one; set ranker.labels = \
         \"letters\", take fewer candidates, or end the template differently",
        found.len()
    ))
}

fn merged(label: &str, before: &[u32], after: &[u32]) -> Error {
    let common = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    Error::Labels(format!(
        "label `{label}` merges with the end of the prompt: tokens {:?} become {:?}; end the template with a line break",
        &before[common..],
        &after[common..]
    ))
}
