//! The tokens that all prompts of a job begin with, read once.

use kernels::Tensor;

/// Tokens that many prompts begin with, and what the layers made of them.
///
/// A prompt that begins with these tokens is scored to the same bits from here as from its first token: attention reads
/// shared keys in the order in which it would read its own ([`kernels::attention`]).
#[derive(Debug)]
pub struct SharedPrefix {
    pub(super) ids: Vec<u32>,
    /// Keys and values of every layer: `[tokens, kv_heads * head_dim]`, keys rotated.
    pub(super) layers: Vec<(Tensor, Tensor)>,
}

impl SharedPrefix {
    /// How many tokens are shared.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The memory of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|(k, v)| k.len() * k.dtype().bytes() + v.len() * v.dtype().bytes()).sum()
    }

    /// Keys and values of one layer.
    pub(super) fn of(&self, layer: usize) -> (&Tensor, &Tensor) {
        let (k, v) = &self.layers[layer];
        (k, v)
    }

    /// Whether a prompt begins with these tokens and goes on.
    pub(super) fn begins(&self, prompt: &[u32]) -> bool {
        prompt.len() > self.ids.len() && prompt.starts_with(&self.ids)
    }
}
