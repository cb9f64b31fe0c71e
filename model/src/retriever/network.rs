//! The network, once forward and once backward.
//!
//! Embedding (dropout, norm), then blocks of a linear recurrence and a feed-forward network, each with dropout, a
//! residual connection and a norm behind it.

use kernels::{
    Segments, Tensor,
    dropout::{self, Mask},
    embedding, gelu,
    gemm::{self, Activation, Epilogue},
    layer_norm, lru_scan,
};

use super::{
    batch::PackedBatch,
    names::{self, BlockNames},
};
use crate::{Result, params::Params};

/// What keeps a norm from dividing by zero.
const NORM_EPS: f32 = 1e-5;

/// Dropout of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The seed of the run.
    pub seed: u64,
    /// The share of elements that are dropped.
    pub rate: f32,
}

impl Dropout {
    /// No dropout: scoring, and comparisons.
    pub const NONE: Self = Self { seed: 0, rate: 0.0 };
}

/// What the backward needs of the forward.
pub(super) struct Activations {
    embedded: Tensor,
    embedding_norm: layer_norm::Saved,
    blocks: Vec<Block>,
}

/// The activations of one block.
struct Block {
    input: Tensor,
    recurrence: lru_scan::Saved,
    /// Output of the recurrence after dropout, plus the input.
    mixed: Tensor,
    mixed_norm: layer_norm::Saved,
    /// What the feed-forward network reads.
    normed: Tensor,
    before_gelu: Tensor,
    /// After activation and dropout.
    inner: Tensor,
    /// Output of the feed-forward network after dropout, plus its input.
    fed: Tensor,
    fed_norm: layer_norm::Saved,
}

/// The hidden state of every row, without what a backward needs: `[rows, hidden]`.
pub(super) fn infer(params: &Params, layers: usize, ids: &[u32], segments: &Segments) -> Result<Tensor> {
    let embedded = embedding::forward(params.get(names::TOKEN)?, ids)?;
    let (mut hidden, _) = norm(params, &names::EMBEDDING_NORM, &embedded)?;
    for layer in 0..layers {
        hidden = infer_block(params, layer, hidden, segments)?;
    }
    Ok(hidden)
}

/// The bits of [`forward_block`] without dropout.
fn infer_block(params: &Params, layer: usize, input: Tensor, segments: &Segments) -> Result<Tensor> {
    let names = BlockNames::new(layer);
    let (mut mixed, _) = lru_scan::forward(&input, &recurrence_weights(params, &names)?, segments)?;
    let (normed, _) = add_then_norm(params, &names.lru_norm, &mut mixed, &input)?;
    let [w_1, w_2] = [&names.w_1, &names.w_2].map(|[weight, bias]| (params.get(weight), params.get(bias)));
    let activated = Epilogue { bias: Some(w_1.1?), activation: Activation::Gelu, residual: None };
    let inner = gemm::linear_then(&normed, w_1.0?, &activated)?; // [rows, 4 * hidden]
    let onto_input = Epilogue { bias: Some(w_2.1?), activation: Activation::None, residual: Some(&normed) };
    let fed = gemm::linear_then(&inner, w_2.0?, &onto_input)?; // [rows, hidden]
    Ok(norm(params, &names.feed_forward_norm, &fed)?.0)
}

/// The hidden state of every row: `[rows, hidden]`.
pub(super) fn forward(
    params: &Params,
    layers: usize,
    batch: &PackedBatch,
    dropout: Dropout,
) -> Result<(Tensor, Activations)> {
    let sites = Sites { dropout, row_keys: &batch.row_keys };
    let mut embedded = embedding::forward(params.get(names::TOKEN)?, &batch.ids)?; // [rows, hidden]
    sites.apply(Site::Embedding, &mut embedded)?;
    let (mut hidden, embedding_norm) = norm(params, &names::EMBEDDING_NORM, &embedded)?;

    let mut blocks = Vec::with_capacity(layers);
    for layer in 0..layers {
        let (output, block) = forward_block(params, layer, hidden, &batch.segments, &sites)?;
        hidden = output;
        blocks.push(block);
    }
    Ok((hidden, Activations { embedded, embedding_norm, blocks }))
}

fn forward_block(
    params: &Params,
    layer: usize,
    input: Tensor,
    segments: &Segments,
    sites: &Sites<'_>,
) -> Result<(Tensor, Block)> {
    let names = BlockNames::new(layer);
    let (mut mixed, recurrence) = lru_scan::forward(&input, &recurrence_weights(params, &names)?, segments)?;
    sites.apply(Site::Recurrence(layer), &mut mixed)?;
    let (normed, mixed_norm) = add_then_norm(params, &names.lru_norm, &mut mixed, &input)?;

    let before_gelu = linear(params, &names.w_1, &normed)?; // [rows, 4 * hidden]
    let mut inner = gelu::forward(&before_gelu)?;
    sites.apply(Site::Inner(layer), &mut inner)?;
    let mut fed = linear(params, &names.w_2, &inner)?; // [rows, hidden]
    sites.apply(Site::FeedForward(layer), &mut fed)?;
    let (output, fed_norm) = add_then_norm(params, &names.feed_forward_norm, &mut fed, &normed)?;
    let block = Block { input, recurrence, mixed, mixed_norm, normed, before_gelu, inner, fed, fed_norm };
    Ok((output, block))
}

/// Adds the gradients of all parameters to `grads`, given the gradient of the hidden states.
pub(super) fn backward(
    params: &Params,
    batch: &PackedBatch,
    dropout: Dropout,
    activations: &Activations,
    d_hidden: Tensor,
    grads: &mut Params,
) -> Result<()> {
    let sites = Sites { dropout, row_keys: &batch.row_keys };
    let mut d_hidden = d_hidden;
    for (layer, block) in activations.blocks.iter().enumerate().rev() {
        d_hidden = backward_block(params, layer, block, d_hidden, &batch.segments, &sites, grads)?;
    }
    let a = activations;
    let mut d_embedded =
        norm_backward(params, &names::EMBEDDING_NORM, &a.embedded, &a.embedding_norm, &d_hidden, grads)?;
    sites.apply(Site::Embedding, &mut d_embedded)?;
    Ok(embedding::backward(&d_embedded, &batch.ids, grads.get_mut(names::TOKEN)?)?)
}

fn backward_block(
    params: &Params,
    layer: usize,
    block: &Block,
    d_output: Tensor,
    segments: &Segments,
    sites: &Sites<'_>,
    grads: &mut Params,
) -> Result<Tensor> {
    let names = BlockNames::new(layer);
    let mut d_normed = norm_backward(params, &names.feed_forward_norm, &block.fed, &block.fed_norm, &d_output, grads)?;
    let mut d_fed = d_normed.clone();
    sites.apply(Site::FeedForward(layer), &mut d_fed)?;
    let mut d_inner = linear_backward(params, &names.w_2, &block.inner, &d_fed, grads)?;
    sites.apply(Site::Inner(layer), &mut d_inner)?;
    let d_before_gelu = gelu::backward(&d_inner, &block.before_gelu)?;
    d_normed.add(&linear_backward(params, &names.w_1, &block.normed, &d_before_gelu, grads)?)?;

    let mut d_input = norm_backward(params, &names.lru_norm, &block.mixed, &block.mixed_norm, &d_normed, grads)?;
    let mut d_mixed = d_input.clone();
    sites.apply(Site::Recurrence(layer), &mut d_mixed)?;
    let weights = recurrence_weights(params, &names)?;
    let mut gradients = recurrence_grads(grads, &names)?;
    let d_recurrence =
        lru_scan::backward(&d_mixed, &block.input, &block.recurrence, &weights, segments, &mut gradients)?;
    d_input.add(&d_recurrence)?;
    Ok(d_input)
}

/// The places where dropout is applied; each draws its own mask.
enum Site {
    Embedding,
    Recurrence(usize),
    Inner(usize),
    FeedForward(usize),
}

impl Site {
    fn number(&self) -> u32 {
        let block = |layer: &usize, place: u32| 1 + 3 * *layer as u32 + place;
        match self {
            Self::Embedding => 0,
            Self::Recurrence(layer) => block(layer, 0),
            Self::Inner(layer) => block(layer, 1),
            Self::FeedForward(layer) => block(layer, 2),
        }
    }
}

/// Dropout for the rows of a batch; the same call serves forward and backward.
struct Sites<'a> {
    dropout: Dropout,
    row_keys: &'a [u64],
}

impl Sites<'_> {
    fn apply(&self, site: Site, x: &mut Tensor) -> Result<()> {
        let Dropout { seed, rate } = self.dropout;
        if rate != 0.0 {
            dropout::apply(x, &Mask { seed, site: site.number(), rate }, self.row_keys)?;
        }
        Ok(())
    }
}

fn norm(params: &Params, [weight, bias]: &[impl AsRef<str>; 2], x: &Tensor) -> Result<(Tensor, layer_norm::Saved)> {
    Ok(layer_norm::forward(x, params.get(weight.as_ref())?, params.get(bias.as_ref())?, NORM_EPS)?)
}

/// `x += y`, and the norm of the sum.
fn add_then_norm(
    params: &Params,
    [weight, bias]: &[impl AsRef<str>; 2],
    x: &mut Tensor,
    y: &Tensor,
) -> Result<(Tensor, layer_norm::Saved)> {
    let [weight, bias] = [params.get(weight.as_ref())?, params.get(bias.as_ref())?];
    Ok(layer_norm::add_then_forward(x, y, weight, bias, NORM_EPS)?)
}

fn norm_backward(
    params: &Params,
    [weight, bias]: &[impl AsRef<str>; 2],
    x: &Tensor,
    saved: &layer_norm::Saved,
    dy: &Tensor,
    grads: &mut Params,
) -> Result<Tensor> {
    let [d_weight, d_bias] = grads.get_many_mut([weight.as_ref(), bias.as_ref()])?;
    Ok(layer_norm::backward(dy, x, saved, params.get(weight.as_ref())?, d_weight, d_bias)?)
}

fn linear(params: &Params, [weight, bias]: &[String; 2], x: &Tensor) -> Result<Tensor> {
    Ok(gemm::linear(x, params.get(weight)?, Some(params.get(bias)?))?)
}

fn linear_backward(
    params: &Params,
    [weight, bias]: &[String; 2],
    x: &Tensor,
    dy: &Tensor,
    grads: &mut Params,
) -> Result<Tensor> {
    let [d_weight, d_bias] = grads.get_many_mut([weight.as_str(), bias.as_str()])?;
    gemm::linear_backward_weight(dy, x, d_weight, Some(d_bias))?;
    Ok(gemm::linear_backward_input(dy, params.get(weight)?)?)
}

fn recurrence_weights<'a>(params: &'a Params, names: &BlockNames) -> Result<lru_scan::Weights<'a>> {
    let [in_re, in_im, in_bias_re, in_bias_im] = &names.in_proj;
    let [out_re, out_im, out_bias_re, _] = &names.out_proj;
    Ok(lru_scan::Weights {
        params_log: params.get(&names.params_log)?,
        in_re: params.get(in_re)?,
        in_im: params.get(in_im)?,
        in_bias_re: params.get(in_bias_re)?,
        in_bias_im: params.get(in_bias_im)?,
        out_re: params.get(out_re)?,
        out_im: params.get(out_im)?,
        out_bias_re: params.get(out_bias_re)?,
    })
}

fn recurrence_grads<'a>(grads: &'a mut Params, names: &BlockNames) -> Result<lru_scan::Grads<'a>> {
    let [in_re, in_im, in_bias_re, in_bias_im] = names.in_proj.each_ref().map(String::as_str);
    let [out_re, out_im, out_bias_re, _] = names.out_proj.each_ref().map(String::as_str);
    let names = [&names.params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re];
    let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = grads.get_many_mut(names)?;
    Ok(lru_scan::Grads { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re })
}
