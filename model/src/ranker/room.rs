//! How much is computed together, found out where the device has no room for what was asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::Device;

use super::{config::LlamaConfig, footprint::Footprint, options::RankerOptions, recompute::Keep};
use crate::Precision;

/// Tokens of a micro-batch, and bytes of activations that are kept of it: as many as there seems to be memory for. Both shrink
/// when it runs out all the same, and stay so.
#[derive(Debug)]
pub(crate) struct Room {
    tokens: AtomicUsize,
    activation_bytes: AtomicUsize,
}

impl Room {
    pub(crate) fn new(tokens: usize, activation_bytes: usize) -> Self {
        Self { tokens: AtomicUsize::new(tokens), activation_bytes: AtomicUsize::new(activation_bytes) }
    }

    /// For a ranker that has been loaded to a device: activations may take what its training leaves of the free memory.
    pub(crate) fn on(device: &Device, footprint: &Footprint, options: &RankerOptions) -> Self {
        let to_come = footprint.training_bytes_to_come(options.micro_batch_tokens as u64);
        let left = device.free_bytes().map_or(usize::MAX, |free| free.saturating_sub(to_come as usize));
        Self::new(options.micro_batch_tokens, options.activation_bytes.min(left))
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn activation_bytes(&self) -> usize {
        self.activation_bytes.load(Ordering::Relaxed)
    }

    /// Half of the tokens, down to those of the longest sequence, of which no part can be computed alone. False if that is as
    /// little as can be.
    pub(crate) fn shrink_tokens(&self, longest: usize) -> bool {
        let now = self.tokens();
        let next = (now / 2).max(longest);
        self.tokens.store(next.min(now), Ordering::Relaxed);
        next < now
    }

    /// Half of the activations that are kept, which changes no bit; where every layer keeps its input alone already, half of the
    /// tokens. False if that is as little as can be.
    pub(crate) fn shrink(&self, longest: usize, config: &LlamaConfig, precision: Precision) -> bool {
        let bytes = |keep: Keep| config.layers * keep.bytes(config, precision) * self.tokens().max(longest);
        let now = self.activation_bytes().min(bytes(Keep::All));
        if now <= bytes(Keep::Input) {
            return self.shrink_tokens(longest);
        }
        self.activation_bytes.store((now / 2).max(bytes(Keep::Input)), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_shrink_to_inputs_then_tokens_to_one_sequence() {
        let json = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 2}"#;
        let config = LlamaConfig::from_json(json).unwrap_or_else(|e| panic!("{e}"));
        let room = Room::new(100, usize::MAX);
        let mut seen = Vec::new();
        while room.shrink(30, &config, Precision::F32) {
            seen.push((room.tokens(), room.activation_bytes()));
        }
        let (all, input) = (2 * 82 * 100 * 4, 2 * 8 * 100 * 4);
        let kept = [all / 2, all / 4, all / 8, input].map(|bytes| (100, bytes));
        assert_eq!(seen[..4], kept);
        // Inputs of fewer tokens need less than that, so nothing is to be had there any more.
        assert_eq!(seen[4].0, 50);
        assert_eq!(seen[seen.len() - 1].0, 30);
    }
}
