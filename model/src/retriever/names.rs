//! Names and shapes of the parameters, as in the public LRURec checkpoints; complex ones are held as two real tensors.

use super::config::LruRecConfig;

/// The embeddings of the items, which are also the weights of the output: `[items + 1, hidden]`.
pub(super) const TOKEN: &str = "embedding.token.weight";
/// The norm after the embedding.
pub(super) const EMBEDDING_NORM: [&str; 2] = ["embedding.layer_norm.weight", "embedding.layer_norm.bias"];
/// The bias of every item in the output: `[items + 1]`.
pub(super) const OUTPUT_BIAS: &str = "model.bias";
/// How the names of the recurrence's coefficients end.
pub(super) const PARAMS_LOG: &str = "lru_layer.params_log";

/// The names of one block's parameters.
pub(super) struct BlockNames {
    pub(super) params_log: String,
    /// in_proj weight (real, imaginary), bias (real, imaginary).
    pub(super) in_proj: [String; 4],
    /// out_proj weight (real, imaginary), bias (real, imaginary).
    pub(super) out_proj: [String; 4],
    /// Weight and bias.
    pub(super) lru_norm: [String; 2],
    /// Weight and bias.
    pub(super) w_1: [String; 2],
    /// Weight and bias.
    pub(super) w_2: [String; 2],
    /// Weight and bias.
    pub(super) feed_forward_norm: [String; 2],
}

impl BlockNames {
    pub(super) fn new(layer: usize) -> Self {
        let name = |rest: &str| format!("model.lru_blocks.{layer}.{rest}");
        let pair = |module: &str| ["weight", "bias"].map(|p| name(&format!("{module}.{p}")));
        let complex = |module: &str| {
            ["weight.real", "weight.imag", "bias.real", "bias.imag"].map(|p| name(&format!("lru_layer.{module}.{p}")))
        };
        Self {
            params_log: name(PARAMS_LOG),
            in_proj: complex("in_proj"),
            out_proj: complex("out_proj"),
            lru_norm: pair("lru_layer.layer_norm"),
            w_1: pair("feed_forward.w_1"),
            w_2: pair("feed_forward.w_2"),
            feed_forward_norm: pair("feed_forward.layer_norm"),
        }
    }
}

/// Every parameter with its shape.
pub(super) fn shapes(config: &LruRecConfig) -> Vec<(String, Vec<usize>)> {
    let (classes, d, state, inner) = (config.classes(), config.hidden, config.state(), config.feed_forward());
    let mut shapes = vec![(TOKEN.to_owned(), vec![classes, d]), (OUTPUT_BIAS.to_owned(), vec![classes])];
    shapes.extend(EMBEDDING_NORM.map(|name| (name.to_owned(), vec![d])));
    for layer in 0..config.layers {
        let names = BlockNames::new(layer);
        shapes.push((names.params_log, vec![3, state]));
        let in_shapes = [vec![state, d], vec![state, d], vec![state], vec![state]];
        let out_shapes = [vec![d, state], vec![d, state], vec![d], vec![d]];
        shapes.extend(names.in_proj.into_iter().zip(in_shapes));
        shapes.extend(names.out_proj.into_iter().zip(out_shapes));
        shapes.extend(names.w_1.into_iter().zip([vec![inner, d], vec![inner]]));
        shapes.extend(names.w_2.into_iter().zip([vec![d, inner], vec![d]]));
        shapes.extend(names.lru_norm.into_iter().chain(names.feed_forward_norm).map(|name| (name, vec![d])));
    }
    shapes
}
