//! The decoder: OPT, greedy, with the keys and values of what it has read kept for the next step.

use kernels::{
    Segments, Tensor,
    attention::{self, Cache, Mask, Operands, Shape},
    embedding,
    gemm::Activation,
    rows::{self, Strand},
};

use super::{
    Generation,
    block::Block,
    config::DecoderConfig,
    linear::{Linear, Loader, Norm},
};
use crate::{Error, Precision, Result};

/// Positions are counted from here: an oddity of OPT.
const FIRST_POSITION: usize = 2;
/// The embedding table.
pub(super) const EMBEDDINGS: &str = "language_model.model.decoder.embed_tokens.weight";

#[derive(Debug)]
pub(super) struct Decoder {
    tokens: Tensor,    // [vocabulary, hidden]
    positions: Tensor, // [max_positions + 2, hidden]
    layers: Vec<Block>,
    norm: Norm,
    head: Linear,
    shape: Shape,
    precision: Precision,
    max_positions: usize,
}

/// Texts in the making, one for every picture that is not finished.
pub(super) struct Texts {
    caches: Vec<Cache>,
    /// Positions that are taken.
    len: usize,
}

impl Decoder {
    pub(super) fn load(config: &DecoderConfig, loader: &Loader<'_>) -> Result<Self> {
        let name = |part: &str| format!("language_model.model.decoder.{part}");
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        let tokens = loader.tensor(EMBEDDINGS, &[vocabulary, hidden])?;
        let positions = [config.max_positions + FIRST_POSITION, hidden];
        let head = if config.tied_embeddings {
            tokens.clone()
        } else {
            loader.tensor("language_model.lm_head.weight", &[vocabulary, hidden])?
        };
        Ok(Self {
            positions: loader.device.put(&loader.tensor(&name("embed_positions.weight"), &positions)?)?,
            layers: (0..config.layers).map(|i| load_block(config, i, loader)).collect::<Result<_>>()?,
            norm: loader.norm(&name("final_layer_norm"), hidden, config.eps)?,
            head: Linear::new(head, None, loader)?,
            shape: config.attention(),
            precision: loader.precision,
            max_positions: config.max_positions,
            tokens: loader.device.put(&tokens)?,
        })
    }

    /// The likeliest tokens after each prefix of `rows` rows and a token that begins a text.
    pub(super) fn generate(
        &self,
        prefix: Tensor,
        rows: usize,
        begin: u32,
        generation: &Generation,
    ) -> Result<Vec<Vec<u32>>> {
        let pictures = prefix.rows() / rows;
        let mut written = vec![Vec::new(); pictures];
        if pictures == 0 || generation.max_tokens == 0 {
            return Ok(written);
        }
        let (mut texts, mut logits) = self.begin(prefix, rows, begin, generation.max_tokens)?;
        // Which picture each of the texts belongs to.
        let mut open: Vec<usize> = (0..pictures).collect();
        loop {
            let next = rows::largest(&logits)?;
            let goes_on = |&i: &usize| !generation.ends.contains(&next[i]);
            let kept: Vec<usize> = (0..open.len()).filter(goes_on).collect();
            kept.iter().for_each(|&i| written[open[i]].push(next[i]));
            let enough = kept.first().is_none_or(|&i| written[open[i]].len() == generation.max_tokens);
            if enough {
                return Ok(written);
            }
            if kept.len() < open.len() {
                texts.keep(&kept)?;
            }
            open = kept.iter().map(|&i| open[i]).collect();
            let next: Vec<u32> = kept.iter().map(|&i| next[i]).collect();
            logits = self.step(&mut texts, &next)?;
        }
    }

    /// Reads prefixes and the token that begins a text; returns the texts and the logits of what comes next, `[texts,
    /// vocabulary]`.
    pub(super) fn begin(&self, prefix: Tensor, rows: usize, begin: u32, room: usize) -> Result<(Texts, Tensor)> {
        let (texts, len) = (prefix.rows() / rows, rows + 1);
        if len + room > self.max_positions + 1 {
            let (longest, room) = ((self.max_positions + 1).saturating_sub(len), room);
            return Err(Error::Input(format!("captions of {room} tokens, the decoder has room for {longest}")));
        }
        let begin = embedding::forward(&self.tokens, &[begin])?;
        let strands = [Strand { rows: &prefix, each: rows }, Strand { rows: &begin, each: 1 }];
        let mut x = rows::weave(&strands, texts)?;
        self.add_positions(&mut x, 0, len)?;
        let segments = Segments::from_lengths(vec![len; texts]);
        let mut caches = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let [q, k, v] = layer.look(&x)?;
            let mut cache = Cache::beside(&k, texts, rows + room, &self.shape)?;
            cache.append(&k, &v)?;
            caches.push(cache);
            let operands = Operands::new(&q, &k, &v, Mask::Causal(&segments));
            let seen = self.precision.attention(&operands, &self.shape)?;
            x = layer.rest(&seen, &x)?;
        }
        let last: Vec<u32> = (1..=texts).map(|i| (i * len - 1) as u32).collect();
        let logits = self.logits(&embedding::forward(&x, &last)?)?;
        Ok((Texts { caches, len }, logits))
    }

    /// Reads one more token of every text; returns the logits of the one after it.
    fn step(&self, texts: &mut Texts, tokens: &[u32]) -> Result<Tensor> {
        let mut x = embedding::forward(&self.tokens, tokens)?;
        self.add_positions(&mut x, texts.len, 1)?;
        texts.len += 1;
        for (layer, cache) in self.layers.iter().zip(&mut texts.caches) {
            let [q, k, v] = layer.look(&x)?;
            cache.append(&k, &v)?;
            x = layer.rest(&attention::step(&q, cache, &self.shape)?, &x)?;
        }
        self.logits(&x)
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.norm.operand(x)?)
    }

    /// Adds to every `len` rows what says that they stand at `from` and behind.
    fn add_positions(&self, x: &mut Tensor, from: usize, len: usize) -> Result<()> {
        let first = (from + FIRST_POSITION) as u32;
        let ids: Vec<u32> = (first..first + len as u32).collect();
        Ok(rows::add_repeated(x, &embedding::forward(&self.positions, &ids)?)?)
    }
}

impl Texts {
    fn keep(&mut self, texts: &[usize]) -> Result<()> {
        Ok(self.caches.iter_mut().try_for_each(|cache| cache.keep(texts))?)
    }
}

fn load_block(config: &DecoderConfig, layer: usize, loader: &Loader<'_>) -> Result<Block> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let name = |part: &str| format!("language_model.model.decoder.layers.{layer}.{part}");
    let square = |part: &str| loader.linear(&name(part), hidden, hidden);
    Ok(Block {
        before_attention: loader.norm(&name("self_attn_layer_norm"), hidden, config.eps)?,
        query: square("self_attn.q_proj")?,
        key: square("self_attn.k_proj")?,
        value: square("self_attn.v_proj")?,
        out: square("self_attn.out_proj")?,
        before_mlp: loader.norm(&name("final_layer_norm"), hidden, config.eps)?,
        up: loader.linear(&name("fc1"), inner, hidden)?,
        activation: Activation::Relu,
        down: loader.linear(&name("fc2"), hidden, inner)?,
    })
}
