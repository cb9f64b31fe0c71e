//! Networks and prompts of the ranker.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::noise;

/// Tokens of a prompt: the mean and the deviation of prompts with 20 candidates and histories of 20.
const TOKENS: [f32; 2] = [1150.0, 200.0];
/// No prompt is shorter or longer.
const RANGE: [f32; 2] = [200.0, 2000.0];
/// The seed of the lengths.
const SEED: u64 = 7;

/// A network that reads prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Reading {
    /// What people call the network.
    pub(in super::super) name: String,
    /// Its `config.json`.
    pub(in super::super) config: Value,
    /// Tokens of every prompt.
    pub(in super::super) lengths: Vec<usize>,
    /// So many tokens all prompts begin with, which a contestant may read once; the lengths count them.
    pub(in super::super) shared: usize,
    /// Whether our linear layers are in eight bits.
    pub(in super::super) fp8: bool,
    /// At most so many tokens are computed together, where a contestant has that choice.
    pub(in super::super) micro_batch_tokens: usize,
    /// What both sides read, see [`super::super::prompts::Problem`].
    pub(in super::super) folder: String,
}

impl Reading {
    /// Llama-2-7B in all its width with so many layers, and the first so many prompts of the list.
    pub(super) fn llama2_7b(layers: usize, prompts: usize) -> Self {
        let name = if layers == LAYERS { "Llama-2-7B".to_owned() } else { format!("Llama-2-7B, {layers} layers") };
        let config = llama([4096, 11008, layers], [32, 32], 32_000);
        Self::new(name, config, lengths(prompts), 4096)
    }

    fn new(name: String, config: Value, lengths: Vec<usize>, micro_batch_tokens: usize) -> Self {
        Self { name, config, lengths, shared: 0, fp8: false, micro_batch_tokens, folder: String::new() }
    }

    /// The same, of prompts that begin alike.
    pub(super) fn sharing(self, shared: usize) -> Self {
        Self { shared, ..self }
    }

    /// The same in eight bits.
    pub(super) fn in_eight_bits(self) -> Self {
        Self { fp8: true, ..self }
    }

    /// Two narrow layers. Two of the prompts are computed together, and one alone.
    pub(super) fn tiny() -> Self {
        let config = llama([64, 128, 2], [2, 1], 100);
        Self::new("a tiny Llama".to_owned(), config, vec![9, 21, 14], 32)
    }

    /// Tokens of all prompts.
    pub(in super::super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The network and its prompts, for people.
    pub(super) fn label(&self) -> String {
        let shared = if self.shared > 0 { format!(", the first {} alike", self.shared) } else { String::new() };
        format!("{}, {} prompts, {} tokens{shared}", self.name, self.lengths.len(), self.tokens())
    }
}

/// Layers of Llama-2-7B.
pub(in super::super) const LAYERS: usize = 32;

/// A `config.json` as transformers writes it.
fn llama([hidden, inner, layers]: [usize; 3], [heads, kv_heads]: [usize; 2], vocabulary: usize) -> Value {
    json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 4096,
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    })
}

/// The first lengths of the list.
fn lengths(prompts: usize) -> Vec<usize> {
    let [mean, deviation] = TOKENS;
    let [least, most] = RANGE;
    let drawn = noise::normals(SEED, prompts, deviation);
    drawn.into_iter().map(|off| (mean + off).clamp(least, most) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_prompts_and_a_short_list_begins_a_long_one() {
        let all = lengths(256);
        let mean = all.iter().sum::<usize>() as f64 / 256.0;
        let deviation = (all.iter().map(|&n| (n as f64 - mean).powi(2)).sum::<f64>() / 256.0).sqrt();
        assert!((mean - 1150.0).abs() < 40.0 && (deviation - 200.0).abs() < 30.0, "{mean} {deviation}");
        assert_eq!(all[..6], lengths(6));
    }
}
