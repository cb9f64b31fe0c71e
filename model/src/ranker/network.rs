//! The decoder of the Llama family: embeddings, layers, a last norm, an output projection on the rows that need it.

use kernels::{Segments, Tensor, embedding, gemm, linear_cross_entropy, rms_norm, rope};

use super::{
    config::LlamaConfig,
    layer::{Layer, Run, Saved as SavedLayer, Selected},
    linear::Linear,
    pass::{Keys, Pass},
    recompute::{self, Keep},
    shared_prefix::SharedPrefix,
    store::{EMBEDDINGS, FINAL_NORM, Weights},
};
use crate::{Error, Precision, Result, params::Params};

/// The structure of a network; the values are in [`Weights`].
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: LlamaConfig,
    precision: Precision,
    layers: Vec<Layer>,
    tables: rope::Tables,
}

/// Rows whose next token is trained.
pub(crate) struct Targets {
    /// Rows of the pass, ascending.
    pub(crate) rows: Vec<u32>,
    /// The token that follows each.
    pub(crate) labels: Vec<u32>,
    /// The weight of each in the loss.
    pub(crate) weights: Vec<f32>,
}

/// The rows that the last layer carries on.
#[derive(Clone, Copy)]
enum Rows<'a> {
    All,
    Some(&'a [u32]),
    /// The last one of every sequence.
    Last(&'a [u32]),
}

impl<'a> Rows<'a> {
    fn some(self) -> Option<&'a [u32]> {
        match self {
            Self::All => None,
            Self::Some(rows) | Self::Last(rows) => Some(rows),
        }
    }

    fn selected(self, keys: Option<&'a (u64, Vec<u64>)>) -> Option<Selected<'a>> {
        let keys = Keys { dropout: keys.map(|(seed, keys)| (*seed, keys.as_slice())) };
        let last = matches!(self, Self::Last(_)).then(|| self.some().map_or(0, <[u32]>::len));
        let last = last.map(|sequences| Segments::from_lengths(vec![1; sequences]));
        Some(Selected { rows: self.some()?, keys, last })
    }
}

/// The hidden rows behind the last norm and what led to them.
struct Forward {
    layers: Vec<SavedLayer>,
    h: Tensor, // [rows, hidden], before the last norm
    scale: rms_norm::Saved,
    hidden: Tensor, // [rows, hidden]
}

impl Network {
    /// A network for sequences of up to `max_tokens`, whose products are made of floats of some precision.
    pub(crate) fn new(config: LlamaConfig, precision: Precision, max_tokens: usize) -> Result<Self> {
        let tables = rope::Tables::new(&config.rope(), max_tokens.min(config.longest_sequence()))?;
        let layers = (0..config.layers).map(|i| Layer::new(i, &config)).collect();
        Ok(Self { config, precision, layers, tables })
    }

    pub(crate) fn linears(&self) -> Vec<&Linear> {
        self.layers.iter().flat_map(Layer::linears).collect()
    }

    /// Refuses sequences that are empty or longer than the position tables.
    pub(crate) fn check_lengths<'a>(&self, sequences: impl Iterator<Item = &'a [u32]>) -> Result<()> {
        for (i, sequence) in sequences.enumerate() {
            if sequence.is_empty() || sequence.len() > self.tables.positions() {
                let limit = self.tables.positions();
                let what = format!("sequence {i} has {} tokens; the ranker takes 1 to {limit}", sequence.len());
                return Err(Error::Input(what));
            }
        }
        Ok(())
    }

    /// Logits over the whole vocabulary at every row: for comparisons.
    pub(crate) fn logits(&self, weights: &Weights, pass: &Pass) -> Result<Tensor> {
        let hidden = self.forward(self.run(weights, pass), Rows::All, None)?.hidden;
        Ok(gemm::linear(&hidden, weights.dense(Weights::head_name(&self.config))?, None)?)
    }

    /// Logits of some tokens at the last row of every sequence: `[sequences, tokens]`.
    pub(crate) fn last_logits(
        &self,
        weights: &Weights,
        prefix: Option<&SharedPrefix>,
        pass: &Pass,
        tokens: &[u32],
    ) -> Result<Tensor> {
        let rows: Vec<u32> = pass.segments.last_rows()?.into_iter().map(|r| r as u32).collect();
        let run = Run { prefix, ..self.run(weights, pass) };
        let hidden = self.forward(run, Rows::Last(&rows), None)?.hidden;
        let head = embedding::forward(weights.dense(Weights::head_name(&self.config))?, tokens)?;
        Ok(gemm::linear(&hidden, &head, None)?)
    }

    /// Keys and values of tokens that many sequences begin with.
    pub(crate) fn share(&self, weights: &Weights, ids: &[u32]) -> Result<SharedPrefix> {
        let pass = Pass::new(std::iter::once(ids));
        let keeps = vec![Keep::Projections; self.layers.len()];
        let forward = self.forward(self.run(weights, &pass), Rows::Last(&[ids.len() as u32 - 1]), Some(&keeps))?;
        let layers = forward.layers.into_iter().filter_map(SavedLayer::into_keys_and_values).collect();
        Ok(SharedPrefix { ids: ids.to_vec(), layers })
    }

    /// The loss of every target, without gradients.
    pub(crate) fn losses(&self, weights: &Weights, pass: &Pass, targets: &Targets) -> Result<Vec<f32>> {
        let hidden = self.forward(self.run(weights, pass), Rows::Some(&targets.rows), None)?.hidden;
        let head = weights.dense(Weights::head_name(&self.config))?;
        let losses = linear_cross_entropy::forward(&hidden, head, None, &targets.labels)?;
        Ok(losses.to_host()?.f32()?.to_vec())
    }

    /// The loss of every target; adds the gradients of their weighted sum. At most so many bytes of activations are kept, as far
    /// as that is possible.
    pub(crate) fn gradients(
        &self,
        weights: &Weights,
        pass: &Pass,
        targets: &Targets,
        activation_bytes: usize,
        grads: &mut Params,
    ) -> Result<Vec<f32>> {
        let keeps = recompute::choose(&self.config, self.precision, pass.ids.len(), activation_bytes);
        let forward = self.forward(self.run(weights, pass), Rows::Some(&targets.rows), Some(&keeps))?;
        let head = Weights::head_name(&self.config);
        let output = linear_cross_entropy::forward_backward(
            &forward.hidden,
            weights.dense(head)?,
            None,
            &targets.labels,
            &targets.weights,
            linear_cross_entropy::Grads { dw: grads.get_mut(head).ok(), db: None },
        )?;
        self.backward(weights, pass, &targets.rows, forward, output.dx, grads)?;
        Ok(output.losses.to_host()?.f32()?.to_vec())
    }

    fn run<'a>(&'a self, weights: &'a Weights, pass: &'a Pass) -> Run<'a> {
        Run { config: &self.config, precision: self.precision, weights, tables: &self.tables, pass, prefix: None }
    }

    /// All rows, or some rows of the last layer, whose other rows are then not computed further than attention. `keeps` says what
    /// of each layer a backward pass is to find.
    fn forward(&self, run: Run<'_>, rows: Rows<'_>, keeps: Option<&[Keep]>) -> Result<Forward> {
        let (weights, pass) = (run.weights, run.pass);
        let mut h = embedding::forward(weights.dense(EMBEDDINGS)?, &pass.ids)?;
        let mut layers = Vec::new();
        let keys = rows.some().and_then(|rows| pass.keys_of(rows));
        for (i, layer) in self.layers.iter().enumerate() {
            let selected = if i + 1 == self.layers.len() { rows.selected(keys.as_ref()) } else { None };
            let keep = keeps.map_or(Keep::Input, |keeps| keeps[i]);
            let (next, saved) = layer.forward(run, h, selected.as_ref(), keep)?;
            h = next;
            if keeps.is_some() {
                layers.push(saved);
            }
        }
        let (hidden, scale) = rms_norm::forward(&h, weights.dense(FINAL_NORM)?, self.config.rms_norm_eps)?;
        Ok(Forward { layers, h, scale, hidden })
    }

    fn backward(
        &self,
        weights: &Weights,
        pass: &Pass,
        rows: &[u32],
        forward: Forward,
        d_hidden: Tensor,
        grads: &mut Params,
    ) -> Result<()> {
        let gain = weights.dense(FINAL_NORM)?;
        let d_gain = grads.get_mut(FINAL_NORM).ok();
        let mut dh = rms_norm::backward(&d_hidden, &forward.h, &forward.scale, gain, d_gain)?;
        let keys = pass.keys_of(rows);
        let train_embeddings = grads.contains(EMBEDDINGS);
        // Activations of a layer are dropped as soon as its gradient is done.
        for (i, (layer, saved)) in self.layers.iter().zip(forward.layers).enumerate().rev() {
            let selected = if i + 1 == self.layers.len() { Rows::Some(rows).selected(keys.as_ref()) } else { None };
            let need = i > 0 || train_embeddings;
            match layer.backward(self.run(weights, pass), dh, saved, selected.as_ref(), grads, need)? {
                Some(d) => dh = d,
                None => return Ok(()),
            }
        }
        if train_embeddings {
            embedding::backward(&dh, &pass.ids, grads.get_mut(EMBEDDINGS)?)?;
        }
        Ok(())
    }
}
