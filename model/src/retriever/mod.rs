//! LRURec, the linear-recurrent sequential recommender that proposes the candidates.
//!
//! It knows items as dense ids from 1 on; 0 is padding. Original ids, users and files are the caller's.
//!
//! # Source
//! Yue et al., "Linear Recurrent Units for Sequential Recommendation", WSDM 2024.

mod batch;
mod config;
mod init;
mod names;
mod network;
mod replay;
mod shared;
#[cfg(test)]
mod tests;
mod windows;

use kernels::{
    Device, Tensor, embedding, linear_cross_entropy, rows,
    top_k::{self, Scored},
};

use crate::{
    Error, Result,
    params::{AdamW, AdamWConfig, Params},
    weights,
};
use batch::BatchPart;
pub use batch::{PackedBatch, example_key};
pub use config::LruRecConfig;
pub use network::Dropout;
pub use replay::Recordings;
pub use shared::{Learnt, SharedLruRec};
pub use windows::windows;

/// The class that stands for padding; items begin behind it.
const PADDING: u32 = 0;

/// Rows that are encoded at a time, so that what lies between the layers stays in a cache. A row's bits do not depend on
/// its company, so this changes the time alone.
const ROWS_AT_ONCE: usize = 1024;

/// A retriever: its shape and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct LruRec {
    config: LruRecConfig,
    params: Params,
}

/// What a training step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The mean loss of the rows, before the update.
    pub loss: f64,
    /// The global norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// The number of predicted items.
    pub rows: usize,
}

/// The files of a saved retriever.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedModel {
    /// `model.safetensors`.
    pub weights: Vec<u8>,
    /// `config.json`.
    pub config: Vec<u8>,
}

/// The paper's optimiser: AdamW that spares biases and norms from decay, gradients clipped at 5.
#[must_use]
pub fn optimizer_config(learning_rate: f32, weight_decay: f32) -> AdamWConfig {
    AdamWConfig {
        learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-9,
        weight_decay,
        no_decay: vec!["bias".to_owned(), "layer_norm".to_owned()],
        max_grad_norm: Some(5.0),
    }
}

impl LruRec {
    /// A retriever with fresh parameters: a pure function of configuration and seed.
    ///
    /// # Errors
    /// None in practice; shapes and values are made together.
    pub fn new(config: LruRecConfig, seed: u64) -> Result<Self> {
        let params = init::init(&config, seed)?;
        Ok(Self { config, params })
    }

    /// A retriever with the given parameters.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorShape`] if they do not fit the
    /// configuration.
    pub fn with_params(config: LruRecConfig, params: Params) -> Result<Self> {
        let expected = names::shapes(&config);
        for (name, shape) in &expected {
            let found = params.get(name)?.shape();
            if found != shape {
                let (found, expected) = (found.to_vec(), shape.clone());
                return Err(Error::TensorShape { name: name.clone(), found, expected });
            }
        }
        if let Some((name, _)) = params.iter().find(|(name, _)| !expected.iter().any(|(known, _)| known == name)) {
            return Err(Error::UnknownTensor { name: name.to_owned() });
        }
        Ok(Self { config, params })
    }

    /// The same retriever on a device.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the device has no room.
    pub fn on(&self, device: &Device) -> Result<Self> {
        Ok(Self { config: self.config.clone(), params: self.params.on(device)? })
    }

    /// The same retriever for some of its items only: item `n` of the new one is `items[n - 1]` of this one. Scores keep
    /// their bits.
    ///
    /// # Errors
    /// [`Error::Config`] if no item is left; [`Error::Kernel`] for an item beyond the catalogue.
    pub fn restricted_to(&self, items: &[u32]) -> Result<Self> {
        let old = &self.config;
        let config = LruRecConfig::new(items.len(), old.hidden, old.layers, old.dropout, old.max_length)?;
        let (token, bias) = self.output()?;
        let rows: Vec<u32> = std::iter::once(PADDING).chain(items.iter().copied()).collect();
        let embeddings = embedding::forward(token, &rows)?;
        let host = bias.to_host()?;
        let all = host.f32()?;
        let biases = rows.iter().map(|row| all[*row as usize]).collect();
        let mut params = self.params.clone();
        params.insert(names::OUTPUT_BIAS, Tensor::from_f32(&[rows.len()], biases)?.beside(bias)?);
        params.insert(names::TOKEN, embeddings);
        Self::with_params(config, params)
    }

    /// The shape.
    #[must_use]
    pub fn config(&self) -> &LruRecConfig {
        &self.config
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, to be changed: what a gang does that takes another member's.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// One step: forward, backward, update. The loss is the mean over the rows of the batch.
    ///
    /// # Errors
    /// [`Error::Input`] for a batch without labels; [`Error::Kernel`] for an item beyond the catalogue.
    pub fn train_step(&mut self, batch: &PackedBatch, optimizer: &mut AdamW, dropout: Dropout) -> Result<StepReport> {
        let rows = batch.taught();
        let mut grads = self.params.zeros_like()?;
        let losses = self.gradients(batch, rows, dropout, &mut grads)?;
        let clipping = optimizer.update(&mut self.params, &grads)?;
        // A device is waited for when all of the step is asked for.
        let (loss_sum, grad_norm) = (sum(&losses, rows)?, clipping.norm()?);
        Ok(StepReport { loss: loss_sum / rows as f64, grad_norm, rows })
    }

    /// The sum of the losses of the batch, and the gradients of that sum divided by `rows_of_step`.
    ///
    /// `rows_of_step` is the number of rows of the whole step: gradients of parts of a step then add up to those of the
    /// step.
    ///
    /// # Errors
    /// As [`LruRec::train_step`].
    pub fn loss_and_gradients(
        &self,
        batch: &PackedBatch,
        rows_of_step: usize,
        dropout: Dropout,
    ) -> Result<(f64, Params)> {
        let mut grads = self.params.zeros_like()?;
        let losses = self.gradients(batch, rows_of_step, dropout, &mut grads)?;
        Ok((sum(&losses, batch.taught())?, grads))
    }

    /// Updates the parameters with the gradients of a whole step and returns their norm before clipping.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for gradients of other parameters.
    pub fn update(&mut self, grads: &Params, optimizer: &mut AdamW) -> Result<f64> {
        optimizer.step(&mut self.params, grads)
    }

    /// The loss of every row; the gradients are added to `grads`.
    fn gradients(
        &self,
        batch: &PackedBatch,
        rows_of_step: usize,
        dropout: Dropout,
        grads: &mut Params,
    ) -> Result<Tensor> {
        if batch.rows() == 0 || batch.labels.len() != batch.rows() {
            return Err(Error::Input(format!("{} labels for {} rows of training", batch.labels.len(), batch.rows())));
        }
        let (hidden, activations) = network::forward(&self.params, self.config.layers, batch, dropout)?;
        let mut scale = vec![1.0 / rows_of_step as f32; batch.rows()];
        scale[batch.taught()..].fill(0.0);
        let (token, bias) = self.output()?;
        let [d_token, d_bias] = grads.get_many_mut([names::TOKEN, names::OUTPUT_BIAS])?;
        let output_grads = linear_cross_entropy::Grads { dw: Some(d_token), db: Some(d_bias) };
        let output =
            linear_cross_entropy::forward_backward(&hidden, token, Some(bias), &batch.labels, &scale, output_grads)?;
        network::backward(&self.params, batch, dropout, &activations, output.dx, grads)?;
        Ok(output.losses)
    }

    /// The mean loss of a batch without dropout.
    ///
    /// # Errors
    /// As [`LruRec::train_step`].
    pub fn loss(&self, batch: &PackedBatch) -> Result<f64> {
        let hidden = self.encode_all_positions(batch)?;
        let (token, bias) = self.output()?;
        let losses = linear_cross_entropy::forward(&hidden, token, Some(bias), &batch.labels)?;
        Ok(sum(&losses, losses.len())? / losses.len().max(1) as f64)
    }

    /// The hidden state after every sequence: `[sequences, hidden]`.
    ///
    /// # Errors
    /// [`Error::Kernel`] for an item beyond the catalogue or an empty sequence.
    pub fn encode(&self, batch: &PackedBatch) -> Result<Tensor> {
        batch.segments.last_rows()?;
        let last = |part: BatchPart<'_>| {
            let last: Vec<u32> = part.segments.last_rows()?.into_iter().map(|row| row as u32).collect();
            Ok(embedding::forward(&self.infer(&part)?, &last)?)
        };
        self.joined(batch.parts(ROWS_AT_ONCE).into_iter().map(last).collect::<Result<_>>()?)
    }

    /// The hidden state at every position: `[rows, hidden]`. Row `t` of a sequence has seen its items up to `t`, so one
    /// pass gives the states of all prefixes.
    ///
    /// # Errors
    /// [`Error::Kernel`] for an item beyond the catalogue.
    pub fn encode_all_positions(&self, batch: &PackedBatch) -> Result<Tensor> {
        let parts = batch.parts(ROWS_AT_ONCE);
        self.joined(parts.into_iter().map(|part| self.infer(&part)).collect::<Result<_>>()?)
    }

    /// Hidden states of the parts of a batch, of which there may be none.
    fn joined(&self, states: Vec<Tensor>) -> Result<Tensor> {
        if states.is_empty() {
            return Ok(Tensor::zeros(&[0, self.config.hidden]).beside(self.output()?.0)?);
        }
        Ok(rows::concat(&states)?)
    }

    fn infer(&self, part: &BatchPart<'_>) -> Result<Tensor> {
        network::infer(&self.params, self.config.layers, part.ids, &part.segments)
    }

    /// The `k` best items for every hidden state, best first; ties in the order of ids. Padding and the excluded items,
    /// which must be sorted, are left out.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the operands do not fit.
    pub fn top_k(&self, hidden: &Tensor, exclude: &[&[u32]], k: usize) -> Result<Vec<Vec<Scored>>> {
        let (token, bias) = self.output()?;
        Ok(top_k::top_k(hidden, token, Some(bias), PADDING + 1, exclude, k)?)
    }

    /// The rank of one item per hidden state among all items that are not excluded: 1 + the items that score higher +
    /// those that score the same and have a smaller id.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the operands do not fit.
    pub fn ranks(&self, hidden: &Tensor, exclude: &[&[u32]], targets: &[u32]) -> Result<Vec<u32>> {
        let (token, bias) = self.output()?;
        Ok(top_k::ranks(hidden, token, Some(bias), PADDING + 1, exclude, targets)?)
    }

    /// The ranks by which training is validated in the reference: nothing is excluded, and padding counts as a class.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the operands do not fit.
    pub fn validation_ranks(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<u32>> {
        let (token, bias) = self.output()?;
        let nothing: Vec<&[u32]> = vec![&[]; targets.len()];
        Ok(top_k::ranks(hidden, token, Some(bias), PADDING, &nothing, targets)?)
    }

    /// The files that hold this retriever; the same retriever gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if the weights cannot be written.
    pub fn save(&self) -> Result<SavedModel> {
        Ok(SavedModel { weights: weights::to_bytes(&self.params)?, config: self.config.to_json() })
    }

    /// Reads the files that [`LruRec::save`] made, for a catalogue of `items` items.
    ///
    /// # Errors
    /// [`Error::Config`] if the model was trained on a catalogue of another size; [`Error::TensorShape`],
    /// [`Error::MissingTensor`] or [`Error::UnknownTensor`] if weights and configuration do not fit together.
    pub fn load(weights: &[u8], config: &[u8], items: usize) -> Result<Self> {
        let config = LruRecConfig::from_json(config)?;
        if config.items != items {
            return Err(Error::Config(format!(
                "the retriever was trained on {} items, the catalogue has {items}: train it on this catalogue",
                config.items
            )));
        }
        Self::with_params(config, weights::from_bytes_f32("the retriever's weights", weights)?)
    }

    /// Embeddings and biases that turn a hidden state into scores.
    fn output(&self) -> Result<(&Tensor, &Tensor)> {
        Ok((self.params.get(names::TOKEN)?, self.params.get(names::OUTPUT_BIAS)?))
    }
}

/// The sum of the first losses.
fn sum(losses: &Tensor, rows: usize) -> Result<f64> {
    Ok(losses.to_host()?.f32()?[..rows].iter().map(|&loss| f64::from(loss)).sum())
}
