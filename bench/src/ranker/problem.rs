//! The network, the prompts and the initial factors, the same ones for all contestants.

use std::path::{Path, PathBuf};

use anyhow::Result;
use data::examples::Rng;
use kernels::Tensor;
use model::{params::Params, weights};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const VOCABULARY: u32 = 32_000;
const HIDDEN: usize = 256;
const LAYERS: usize = 4;
/// Tokens of a prompt: those of histories of twenty and twenty candidates, rather short titles.
const TOKENS: [u64; 2] = [800, 1000];
/// Tokens that all prompts begin with: role and instruction.
const SHARED: usize = 120;
/// Examples of an optimiser step, and prompts that are scored.
const EXAMPLES: usize = 16;
const PROMPTS: usize = 48;
/// Labels that are scored.
const LABELS: u32 = 20;

/// What `problem.json` says; the twin reads the same.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) model: PathBuf,
    pub(super) factors: PathBuf,
    /// Texts whose last two tokens are trained.
    pub(super) examples: Vec<Vec<u32>>,
    pub(super) prompts: Vec<Vec<u32>>,
    pub(super) labels: Vec<u32>,
    pub(super) shared: usize,
    pub(super) rank: usize,
    pub(super) alpha: f32,
    pub(super) learning_rate: f32,
    /// Texts that the peers compute together: what the public code does.
    pub(super) trained_together: usize,
    pub(super) scored_together: usize,
}

impl Problem {
    pub(super) fn new(scratch: &Path) -> Self {
        let text = |purpose: u64, number: usize| -> Vec<u32> {
            let mut rng = Rng::keyed(&[purpose, number as u64]);
            let length = TOKENS[0] + rng.below(TOKENS[1] - TOKENS[0]);
            let mut beginning = Rng::keyed(&[0]);
            let token = |rng: &mut Rng| 3 + rng.below(u64::from(VOCABULARY) - 3) as u32;
            let shared: Vec<u32> = (0..SHARED).map(|_| token(&mut beginning)).collect();
            shared.into_iter().chain((SHARED as u64..length).map(|_| token(&mut rng))).collect()
        };
        Self {
            model: scratch.join("model"),
            factors: scratch.join("factors.safetensors"),
            examples: (0..EXAMPLES).map(|number| text(1, number)).collect(),
            prompts: (0..PROMPTS).map(|number| text(2, number)).collect(),
            labels: (300..300 + LABELS).collect(),
            shared: SHARED,
            rank: 8,
            alpha: 32.0,
            learning_rate: 1e-3,
            trained_together: 2,
            scored_together: 6,
        }
    }

    /// The `config.json` of the network.
    pub(super) fn config() -> Value {
        json!({
            "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": 704,
            "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY,
            "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 2048,
            "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
        })
    }

    /// Writes the problem and the initial factors; returns its file.
    pub(super) fn write(&self, scratch: &Path) -> Result<PathBuf> {
        let mut factors = Params::new();
        for layer in 0..LAYERS {
            for projection in ["q_proj", "v_proj"] {
                let module = format!("base_model.model.model.layers.{layer}.self_attn.{projection}");
                for (factor, shape, size) in
                    [("lora_A", [self.rank, HIDDEN], 0.06), ("lora_B", [HIDDEN, self.rank], 0.02)]
                {
                    let name = format!("{module}.{factor}.weight");
                    let mut rng = Rng::keyed(&[3, factors.len() as u64]);
                    let value = |_| (rng.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0) * size;
                    let values = (0..shape[0] * shape[1]).map(value).collect();
                    factors.insert(name, Tensor::from_f32(&shape, values)?);
                }
            }
        }
        std::fs::write(&self.factors, weights::to_bytes(&factors)?)?;
        let file = scratch.join("problem.json");
        std::fs::write(&file, serde_json::to_vec(self)?)?;
        Ok(file)
    }

    /// Tokens of the examples: those that go through the network.
    pub(super) fn example_tokens(&self) -> usize {
        self.examples.iter().map(|text| text.len() - 1).sum()
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(Vec::len).sum()
    }
}
