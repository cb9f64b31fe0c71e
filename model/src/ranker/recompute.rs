//! Which activations are kept for the backward pass, and which are computed again.

use super::config::LlamaConfig;
use crate::Precision;

/// How much of a layer is kept, from most to least. Each step saves memory for less work than the next one would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    /// Everything but what elementwise operations make.
    All,
    /// All but the inside of the gated block.
    Projections,
    /// Of attention its result, but not what it read.
    Attention,
    /// The input alone.
    Input,
}

impl Keep {
    const STEPS: [Self; 4] = [Self::All, Self::Projections, Self::Attention, Self::Input];

    /// Bytes that a layer keeps for every token: the residual stream and the denominators of attention in f32, the rest in the
    /// precision of products.
    pub(crate) fn bytes(self, c: &LlamaConfig, precision: Precision) -> usize {
        let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let (wide, operand) = (size_of::<f32>(), precision.dtype().bytes());
        let input = wide * c.hidden_size;
        let attention = input + operand * queries + wide * (c.heads + c.hidden_size);
        let projections = attention + operand * (queries + 2 * keys);
        match self {
            Self::Input => input,
            Self::Attention => attention,
            Self::Projections => projections,
            Self::All => projections + operand * 2 * c.intermediate_size,
        }
    }
}

/// What each layer keeps of so many tokens, so that all layers together keep at most so many bytes: everything if there is
/// room. Where there is not, all layers take the next step before any takes the one behind it. The last layer carries few rows
/// behind attention, so the estimate is an upper one.
pub(crate) fn choose(c: &LlamaConfig, precision: Precision, tokens: usize, budget: usize) -> Vec<Keep> {
    let mut keeps = vec![Keep::All; c.layers];
    let mut total: usize = c.layers * Keep::All.bytes(c, precision) * tokens;
    for steps in Keep::STEPS.windows(2) {
        let saved = (steps[0].bytes(c, precision) - steps[1].bytes(c, precision)) * tokens;
        for keep in &mut keeps {
            if total <= budget {
                return keeps;
            }
            *keep = steps[1];
            total -= saved;
        }
    }
    keeps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LlamaConfig {
        let json = r#"{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 2}"#;
        LlamaConfig::from_json(json).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn layers_keep_less_step_by_step() {
        let c = config();
        let bytes = |precision| Keep::STEPS.map(|keep| keep.bytes(&c, precision));
        assert_eq!(bytes(Precision::F32), [82, 42, 26, 8].map(|floats| 4 * floats));
        // 18 of 26 and 8 of 8 floats are those of the residual stream and of attention's denominators.
        assert_eq!(bytes(Precision::Bf16), [2 * 82 + 2 * 18, 2 * 42 + 2 * 18, 2 * 26 + 2 * 18, 4 * 8]);
        let choose = |budget| choose(&c, Precision::F32, 10, budget);
        let all = 3 * 4 * 82 * 10;
        assert_eq!(choose(all), [Keep::All; 3]);
        assert_eq!(choose(all - 1), [Keep::Projections, Keep::All, Keep::All]);
        assert_eq!(choose(3 * 4 * 42 * 10), [Keep::Projections; 3]);
        assert_eq!(choose(3 * 4 * 42 * 10 - 1)[0], Keep::Attention);
        assert_eq!(choose(0), [Keep::Input; 3]);
    }
}
