//! What a ranker needs, worked out from its configuration: no weight is read.

use kernels::nf4::{self, BLOCK, NESTED_BLOCK};

use super::{
    config::LlamaConfig,
    network::Network,
    options::{Dequantize, Quantize, RankerOptions, Trainable},
    recompute::Keep,
    store,
};
use crate::{Precision, Result};

/// Parameters, bytes and operations of a ranker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// Parameters of the network.
    pub parameters: u64,
    /// Bytes of the weights that are in four bits never.
    others: u64,
    /// Bytes of a float for every row of a linear layer.
    factors: u64,
    /// Those of them that are trained, or those of the adapter.
    pub trained: u64,
    /// Bytes of the weights as they are held: where nobody says when they are decoded, in four bits.
    pub weights: u64,
    /// The same if they are decoded once, where that is a choice.
    pub weights_decoded: Option<u64>,
    /// Bytes of the weights cut to eight bits, where they are scored so.
    eight_bits: u64,
    /// Bytes of what is trained: values (if they are beside the weights), gradients, and two moments of the optimiser.
    pub trained_bytes: u64,
    /// Those of them that scoring needs too: values that are beside the weights.
    pub beside_bytes: u64,
    /// Bytes of working memory for each token: what the backward pass of one layer makes on its way, and makes again.
    pub working_per_token: u64,
    /// Bytes of a weight that is decoded for a product, as much as is there at once.
    pub decoded: u64,
    /// Bytes of activations for each token, all layers: everything kept, and inputs alone.
    pub activations_per_token: [u64; 2],
    /// Multiply-adds of all linear layers for one token.
    pub multiplies_per_token: u64,
    /// Multiply-adds of attention for one token and one token that it sees.
    pub attention_per_pair: u64,
}

impl Footprint {
    /// The footprint of a network with these settings, while nothing is known of the memory that it has.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for settings that do not go together.
    pub fn of(config: &LlamaConfig, options: &RankerOptions) -> Result<Self> {
        options.check()?;
        let network = Network::new(config.clone(), options.precision, 1)?;
        let linears = network.linears();
        let size = |shape: &[usize]| shape.iter().map(|&extent| extent as u64).product::<u64>();
        let in_linears: u64 = linears.iter().map(|l| size(&[l.d_out, l.d_in])).sum();
        let parameters: u64 = store::expected(config, &linears).iter().map(|(_, shape)| size(shape)).sum();
        let packed = options.quantize == Quantize::Nf4 && options.dequantize != Dequantize::Once;
        let largest = linears.iter().map(|l| size(&[l.d_out, l.d_in])).max().unwrap_or(0);
        let operand = options.precision.dtype().bytes() as u64;
        let others = 4 * (parameters - in_linears);
        let dense = others + operand * in_linears;
        let weights = if packed { others + packed_bytes(in_linears) } else { dense };
        let trained = match &options.trainable {
            Trainable::Nothing => 0,
            Trainable::Full => parameters,
            Trainable::Lora(lora) => {
                let targets = linears.iter().filter(|l| lora.targets.contains(&l.projection));
                targets.map(|l| ((l.d_in + l.d_out) * lora.rank) as u64).sum()
            }
        };
        let copies = if matches!(options.trainable, Trainable::Full) { 3 } else { 4 };
        let kept = |keep: Keep| (config.layers * keep.bytes(config, options.precision)) as u64;
        Ok(Self {
            parameters,
            others,
            factors: linears.iter().map(|l| 4 * l.d_out as u64).sum(),
            trained,
            weights,
            weights_decoded: (packed && options.dequantize == Dequantize::Auto).then_some(dense),
            eight_bits: 0,
            trained_bytes: 4 * copies * trained,
            beside_bytes: if matches!(options.trainable, Trainable::Full) { 0 } else { 4 * trained },
            working_per_token: working_bytes(config, options) as u64,
            decoded: if packed { decoded_at_once(operand * largest, options.precision) } else { 0 },
            activations_per_token: [kept(Keep::All), kept(Keep::Input)],
            multiplies_per_token: in_linears,
            attention_per_pair: (2 * config.layers * config.heads * config.head_dim) as u64,
        })
    }

    /// The same with linear layers that are cut to eight bits for scoring, factors of their rows included.
    #[must_use]
    pub fn scored_in_eight_bits(mut self) -> Self {
        self.eight_bits = self.others + self.multiplies_per_token + self.factors;
        self
    }

    /// The same with the memory that a device has: weights are decoded once where those in four bits take no more than half of it
    /// then.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        let fits = |decoded: &u64| decoded - self.others <= bytes / 2;
        if let Some(decoded) = self.weights_decoded.take().filter(fits) {
            (self.weights, self.decoded) = (decoded, 0);
        }
        self
    }

    /// Bytes while a micro-batch of so many tokens is trained on: everything kept, and inputs alone.
    #[must_use]
    pub fn training_bytes(&self, tokens: u64) -> [u64; 2] {
        let fixed = self.weights + self.trained_bytes + self.working_bytes(tokens);
        self.activations_per_token.map(|per_token| fixed + tokens * per_token)
    }

    /// Those of them that a loaded ranker takes only once it is trained, without activations: gradients, moments, and working
    /// memory.
    pub(super) fn training_bytes_to_come(&self, tokens: u64) -> u64 {
        self.trained_bytes - self.beside_bytes + self.working_bytes(tokens)
    }

    /// Bytes that are used again and again while so many tokens are computed together.
    #[must_use]
    pub fn working_bytes(&self, tokens: u64) -> u64 {
        tokens * self.working_per_token + self.decoded
    }

    /// Bytes while prompts of so many tokens are scored together.
    #[must_use]
    pub fn scoring_bytes(&self, tokens: u64) -> u64 {
        self.weights.max(self.eight_bits) + self.beside_bytes + self.working_bytes(tokens)
    }

    /// Floating-point operations of scoring a prompt of so many tokens.
    #[must_use]
    pub fn scoring_flops(&self, tokens: f64) -> f64 {
        // A row sees half of the others on average.
        2.0 * tokens * (self.multiplies_per_token as f64 + self.attention_per_pair as f64 * tokens / 2.0)
    }

    /// Floating-point operations of learning from one: the forward pass, the gradients of what it read and, where everything is
    /// trained, those of the weights.
    #[must_use]
    pub fn training_flops(&self, tokens: f64) -> f64 {
        let passes = if self.trained == self.parameters { 3.0 } else { 2.0 };
        let attention = 2.0 * tokens * self.attention_per_pair as f64 * tokens / 2.0;
        passes * 2.0 * tokens * self.multiplies_per_token as f64 + 3.5 * attention
    }
}

/// Bytes for each token beside the activations that are kept: what one layer computes again, gradients and the rows that they
/// are made of (inside of the gated block or of attention, whichever are more), what low-rank updates keep of all layers, and
/// what places, sequences and dropout masks take. A gradient that a product made in bfloat16 is f32 for a while.
fn working_bytes(c: &LlamaConfig, options: &RankerOptions) -> usize {
    const OF_ROWS: usize = 16;
    let (wide, operand) = (size_of::<f32>(), options.precision.dtype().bytes());
    let again = Keep::All.bytes(c, options.precision) - Keep::Input.bytes(c, options.precision);
    let inside = (3 * c.intermediate_size).max(2 * (c.heads + c.kv_heads) * c.head_dim);
    let through_f32 = if operand == wide { 0 } else { c.intermediate_size.max(c.heads * c.head_dim) };
    let updates = match &options.trainable {
        Trainable::Lora(lora) => c.layers * lora.targets.len() * lora.rank,
        Trainable::Nothing | Trainable::Full => 0,
    };
    again + operand * inside + wide * (6 * c.hidden_size + through_f32 + updates + OF_ROWS)
}

/// A card decodes a weight band by band for a product in f32, and in bfloat16 as a whole where there is room.
fn decoded_at_once(largest: u64, precision: Precision) -> u64 {
    match precision {
        Precision::F32 => largest.min(nf4::BAND_BYTES as u64),
        Precision::Bf16 => largest,
    }
}

/// Two values a byte, a byte for every block and a float for every 256 blocks.
fn packed_bytes(values: u64) -> u64 {
    let blocks = values.div_ceil(BLOCK as u64);
    values.div_ceil(2) + blocks + 4 * blocks.div_ceil(NESTED_BLOCK as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn llama_2_7b_is_as_large_as_its_authors_say() {
        let json = r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096, "eos_token_id": 2}"#;
        let config = LlamaConfig::from_json(json).unwrap();
        let footprint = Footprint::of(&config, &RankerOptions::default()).unwrap();
        assert_eq!(footprint.parameters, 6_738_415_616);
        // Rank 8 on queries and values.
        assert_eq!(footprint.trained, 32 * 2 * 8 * 2 * 4096);
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        assert!((gib(footprint.weights) - 4.09).abs() < 0.02, "{}", gib(footprint.weights));
        // 12.95 GFLOP for a token in the linear layers, twice that with the gradients of what they read.
        let scoring = footprint.scoring_flops(1.0) / 1e9;
        assert!((scoring - 12.95).abs() < 0.01, "{scoring}");
        assert!((footprint.training_flops(1.0) / 1e9 - 25.9).abs() < 0.02);
        // All weights, a gradient and two moments of each; scoring needs the weights alone.
        let full = RankerOptions { quantize: Quantize::None, trainable: Trainable::Full, ..RankerOptions::default() };
        let full = Footprint::of(&config, &full).unwrap();
        assert_eq!(full.training_bytes(0)[1], 4 * 4 * full.parameters);
        assert_eq!(full.scoring_bytes(0), 4 * full.parameters);
        let [all, least] = footprint.training_bytes(1536);
        assert!(gib(all) < 16.0 && gib(least) < 7.0, "{} {}", gib(all), gib(least));
        // In eight bits a byte a weight, more than in four.
        let cut = footprint.scored_in_eight_bits();
        assert!((gib(cut.scoring_bytes(0)) - 7.03).abs() < 0.1, "{}", gib(cut.scoring_bytes(0)));
        assert_eq!(cut.training_bytes(0), footprint.training_bytes(0));
        // In bfloat16 half of what products read, and the same in the residual stream.
        let narrow = RankerOptions { precision: Precision::Bf16, ..RankerOptions::default() };
        let narrow = Footprint::of(&config, &narrow).unwrap();
        assert_eq!(narrow.weights, footprint.weights);
        let per_token = narrow.activations_per_token.map(|bytes| bytes / 32);
        assert_eq!(per_token, [4 * 2 * 4096 + 4 * 32 + 2 * (4 * 4096 + 2 * 11008), 4 * 4096]);
        let [all, least] = narrow.training_bytes(1536);
        assert!(gib(all) < 11.0 && gib(least) < 6.0, "{} {}", gib(all), gib(least));
        // 13 GB of decoded weights where there is twice as much.
        let gb = |bytes: u64| bytes as f64 / 1e9;
        assert_eq!(narrow.with_memory(24 << 30).weights, narrow.weights);
        let roomy = narrow.with_memory(140 << 30);
        assert!((gb(roomy.weights) - 14.0).abs() < 0.1 && roomy.decoded == 0, "{}", gb(roomy.weights));
    }
}
