//! What a case moves and multiplies at the least, and what that takes at the ceilings of the card.

use serde::Serialize;
use serde_json::Value;

use super::case::{Case, Reading};

/// What no contestant can do without.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Work {
    /// Bytes that are read or written once.
    pub(super) bytes: f64,
    /// Multiplications and additions of the products.
    pub(super) flops: f64,
    /// How many of the unit one repetition does.
    pub(super) amount: f64,
    /// What a rate counts, a second.
    pub(super) unit: &'static str,
}

/// What the card does at most, as measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Ceilings {
    /// Bytes read and written a second, by the faster of the contestants.
    pub(super) bytes_per_s: f64,
    /// Of products in bfloat16, likewise.
    pub(super) flops_per_s: f64,
    /// Of the same without a pause, by ours; no shares are of that.
    pub(super) sustained_flops_per_s: f64,
}

/// Which ceiling is the lower one for some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// That of bytes.
    Bytes,
    /// That of products.
    Products,
}

impl Ceilings {
    /// The share of the ceiling that work of so many milliseconds reaches, and which ceiling that is; none before both are
    /// known.
    pub(super) fn share(&self, work: &Work, milliseconds: f64) -> Option<(f64, Bound)> {
        if self.bytes_per_s <= 0.0 || self.flops_per_s <= 0.0 {
            return None;
        }
        let (bytes, products) = (work.bytes / self.bytes_per_s, work.flops / self.flops_per_s);
        let (seconds, bound) = if bytes > products { (bytes, Bound::Bytes) } else { (products, Bound::Products) };
        Some((seconds * 1e3 / milliseconds, bound))
    }
}

/// A four-bit weight with double quantisation: half a byte a value, a byte for every 64 and a float for every 16,384.
const NF4_BYTES: f64 = 0.5 + 1.0 / 64.0 + 4.0 / 16384.0;

impl Case {
    /// What a repetition does at least.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::Copy { bytes } => moved(2.0 * *bytes as f64),
            Self::Product { size } | Self::Sustained { size, .. } => {
                multiplied(2.0 * (*size as f64).powi(3), 6.0 * (*size as f64).powi(2))
            }
            Self::Nf4Dequantize { d_out, d_in } => moved((NF4_BYTES + 2.0) * (d_out * d_in) as f64),
            Self::Nf4Product { d_out, d_in, rows } | Self::Nf4InputGradient { d_out, d_in, rows } => {
                let weight = (d_out * d_in) as f64;
                let bytes = NF4_BYTES * weight + 2.0 * (rows * (d_in + d_out)) as f64;
                multiplied(2.0 * *rows as f64 * weight, bytes)
            }
            // The rows are read, cut, and read again.
            Self::Fp8Product { d_out, d_in, rows } => {
                let weight = (d_out * d_in) as f64;
                multiplied(2.0 * *rows as f64 * weight, weight + (rows * (4 * d_in + 2 * d_out)) as f64)
            }
            // Two products of every query and key that it sees, and two tensors in and out a row; backward five, and as many
            // tensors more.
            Self::Attention { lengths, heads, head_dim } => attention(lengths, heads * head_dim, 2.0, 4.0),
            Self::AttentionBackward { lengths, heads, head_dim } => attention(lengths, heads * head_dim, 5.0, 8.0),
            Self::RmsNorm { rows, cols } => moved(4.0 * 4.0 * (rows * cols) as f64),
            Self::Rope { rows, heads, head_dim } => moved(2.0 * 4.0 * (rows * heads * head_dim) as f64),
            Self::Swiglu { rows, cols } => moved(3.0 * 4.0 * (rows * cols) as f64),
            Self::Scan { sequences, length, state } => moved(2.0 * 8.0 * (sequences * length * state) as f64),
            Self::RetrieverStep { items, .. } => {
                // AdamW reads a value, its gradient and two moments, and writes three of these.
                Work { bytes: 7.0 * 4.0 * 65.0 * *items as f64, flops: 0.0, amount: 1.0, unit: "steps" }
            }
            Self::Top { items, users, width, .. } => Work {
                bytes: 4.0 * (items * width) as f64,
                flops: 2.0 * (items * width) as f64 * *users as f64,
                amount: *users as f64,
                unit: "users",
            },
            Self::Captions { config, images, tokens, .. } => captions(config, *images as f64, *tokens as f64),
            Self::RankerStep(reading) => ranker(reading, 2.0, true),
            Self::RankerScores(reading) => ranker(reading, 1.0, false),
        }
    }
}

/// Work that is bound by bytes.
fn moved(bytes: f64) -> Work {
    Work { bytes, flops: 0.0, amount: bytes / 1e12, unit: "TB" }
}

/// Work with products.
fn multiplied(flops: f64, bytes: f64) -> Work {
    Work { bytes, flops, amount: flops / 1e12, unit: "TFLOP" }
}

/// Causal attention of bfloat16, with so many products of a query and a key, and so many tensors that are read or written.
fn attention(lengths: &[usize], width: usize, products: f64, tensors: f64) -> Work {
    let bytes = 2.0 * (width * lengths.iter().sum::<usize>()) as f64;
    multiplied(2.0 * products * width as f64 * pairs(lengths), tensors * bytes)
}

/// Queries and the keys that they see.
fn pairs(lengths: &[usize]) -> f64 {
    lengths.iter().map(|&n| (n * (n + 1) / 2) as f64).sum()
}

/// A ranker that carries the last `carried` rows of every prompt through its last layer and needs no other there but as keys
/// and values. The backward ends at the queries, keys and values of the first layer, below which nothing is trained.
fn ranker(reading: &Reading, carried: f64, backward: bool) -> Work {
    let size = |name: &str| reading.config[name].as_f64().unwrap_or(0.0);
    let (hidden, layers, heads) = (size("hidden_size"), size("num_hidden_layers"), size("num_attention_heads"));
    let (rows, last) = (reading.tokens() as f64, carried * reading.lengths.len() as f64);
    // Weights of keys and values, of queries, and of what follows attention.
    let keys = 2.0 * hidden * hidden * size("num_key_value_heads") / heads;
    let (queries, behind) = (hidden * hidden, hidden * hidden + 3.0 * hidden * size("intermediate_size"));
    // What all prompts begin with need be read once; its keys are seen by everybody.
    let again = reading.shared * reading.lengths.len().saturating_sub(1);
    let (read, pairs) =
        (rows - again as f64, pairs(&reading.lengths) - again as f64 * (reading.shared + 1) as f64 / 2.0);
    let whole = read * (keys + queries + behind);
    let products = 2.0 * ((layers - 1.0) * whole + read * keys + last * (queries + behind));
    let seen = 4.0 * hidden * ((layers - 1.0) * pairs + carried * rows);
    let mut flops = products + seen;
    if backward {
        flops += products - 2.0 * rows * (keys + queries) + 2.5 * seen;
    }
    let passes = if backward { 2.0 } else { 1.0 };
    let bytes = passes * layers * NF4_BYTES * (keys + queries + behind);
    Work { bytes, flops, amount: rows, unit: "tokens" }
}

/// The sizes of one of the networks of a captioner.
struct Network {
    hidden: f64,
    inner: f64,
    layers: f64,
}

impl Network {
    fn of(config: &Value, inner: &str) -> Self {
        let size = |name: &str| config[name].as_f64().unwrap_or(0.0);
        Self { hidden: size("hidden_size"), inner: size(inner), layers: size("num_hidden_layers") }
    }

    /// Weights of all layers.
    fn weights(&self) -> f64 {
        self.layers * (4.0 * self.hidden * self.hidden + 2.0 * self.hidden * self.inner)
    }

    /// Products of `rows` rows that see `keys` each.
    fn flops(&self, rows: f64, keys: f64) -> f64 {
        2.0 * rows * self.weights() + 4.0 * self.layers * rows * keys * self.hidden
    }
}

/// The vision tower, the queries (whose looks at the picture are half of the layers), the decoder on the prefix and then
/// token by token; a batch reads the decoder's weights once for every token.
fn captions(config: &Value, images: f64, tokens: f64) -> Work {
    let vision = Network::of(&config["vision_config"], "intermediate_size");
    let qformer = Network::of(&config["qformer_config"], "intermediate_size");
    let decoder = Network::of(&config["text_config"], "ffn_dim");
    let size = |part: &str, name: &str| config[part][name].as_f64().unwrap_or(0.0);
    let patches = (size("vision_config", "image_size") / size("vision_config", "patch_size")).powi(2) + 1.0;
    let queries = config["num_query_tokens"].as_f64().unwrap_or(0.0);
    let looks = qformer.layers / 2.0 * 4.0 * patches * vision.hidden * qformer.hidden;
    let head = size("text_config", "vocab_size") * decoder.hidden;
    let flops = vision.flops(patches, patches)
        + qformer.flops(queries, queries)
        + looks
        + decoder.flops(queries + tokens, queries)
        + 2.0 * tokens * head;
    Work { bytes: 2.0 * tokens * (decoder.weights() + head), flops: images * flops, amount: images, unit: "images" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::case::{LAYERS, real};
    use super::*;

    #[test]
    fn the_share_of_a_ceiling_is_that_of_the_lower_one() {
        let ceilings = Ceilings { bytes_per_s: 4e12, flops_per_s: 800e12, sustained_flops_per_s: 700e12 };
        let share = |work: Work, milliseconds| ceilings.share(&work, milliseconds).unwrap();
        assert_eq!(share(moved(4e9), 2.0), (0.5, Bound::Bytes));
        assert_eq!(share(multiplied(800e9, 1.0), 1.0), (1.0, Bound::Products));
        assert!(Ceilings::default().share(&moved(1.0), 1.0).is_none());
    }

    #[test]
    fn a_caption_of_blip2_takes_about_800_billion_operations() {
        let captions = |case: &Case| matches!(case, Case::Captions { name, .. } if name.contains("BLIP-2"));
        let work = real(60.0, LAYERS).into_iter().find(captions).unwrap().work();
        let giga = work.flops / work.amount / 1e9;
        assert!((780.0..830.0).contains(&giga), "{giga}");
    }

    #[test]
    fn a_token_takes_about_13_billion_operations_and_training_twice_that() {
        let work = |wanted: fn(&Case) -> bool| real(60.0, LAYERS).into_iter().find(wanted).unwrap().work();
        let giga = |work: Work| work.flops / work.amount / 1e9;
        let forward = giga(work(|case| matches!(case, Case::RankerScores(_))));
        let training = giga(work(|case| matches!(case, Case::RankerStep(_))));
        assert!((12.5..13.5).contains(&forward), "{forward}");
        assert!((25.0..27.0).contains(&training), "{training}");
    }
}
