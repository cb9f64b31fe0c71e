//! The ranker: a causal language model that reads history and candidates as text and answers with a label.
//!
//! # What a score depends on
//! On a processor a prompt's scores are the same bits whichever prompts are scored with it, however they are packed and on
//! however many threads: every element of a product is summed in an order of its own ([`kernels::gemm`]), attention works
//! sequence by sequence, and everything else row by row. On a card the order of a product's sums depends on its shape, so
//! company may change last bits. Gradients are sums over tokens, so the packing of a training
//! step changes their last bits; the examples of a step and their masks do not depend on it.

mod adapter;
mod config;
mod example;
mod footprint;
mod layer;
mod linear;
mod lora;
mod network;
mod options;
mod pace;
mod pass;
mod prompt;
mod recompute;
mod room;
mod schedule;
mod shared_prefix;
mod store;
#[cfg(test)]
mod tests;
mod tokenizer;
mod verbalizer;

use std::path::Path;
use std::time::Instant;

use kernels::{Device, Dtype, Tensor};

pub use adapter::{
    Adapter, CONFIG_FILE as ADAPTER_CONFIG_FILE, Merge, Merged, Pair, WEIGHTS_FILE as ADAPTER_WEIGHTS_FILE,
};
pub use config::LlamaConfig;
pub use example::Example;
pub use footprint::Footprint;
pub use lora::{LoraOptions, Projection};
pub use options::{Dequantize, Quantize, RankerOptions, Trainable};
pub use pace::{Pace, Paces};
pub use prompt::{DEFAULT_TEMPLATE, Item, Prompt, PromptBuilder, PromptOptions, Truncation};
pub use schedule::Schedule;
pub use shared_prefix::SharedPrefix;
pub use tokenizer::RankerTokenizer;
pub use verbalizer::{LabelStyle, Verbalizer};

use crate::{
    Error, Result,
    checkpoint::{Checkpoint, TensorSource},
    params::{AdamW, AdamWConfig, Params},
    weights,
};
use network::Network;
use pace::Meter;
use pass::Pass;
use room::Room;
use store::Weights;

/// What one training step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The mean loss of the examples, before the update.
    pub loss: f64,
    /// The norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the network.
    pub tokens: usize,
}

/// Parameters and optimiser in the middle of training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What is trained, as safetensors.
    pub params: Vec<u8>,
    /// The optimiser, as safetensors.
    pub optimizer: Vec<u8>,
}

/// A file of a saved model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name within the model's folder.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A Llama-family network with its weights and its optimiser.
#[derive(Debug)]
pub struct Ranker {
    config_json: String,
    network: Network,
    weights: Weights,
    optimizer: AdamW,
    options: RankerOptions,
    footprint: Footprint,
    room: Room,
    meter: Meter,
}

impl Ranker {
    /// Loads a HF folder to a device: `config.json` and safetensors.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for a network that is not supported,
    /// [`Error::MissingTensor`] or [`Error::TensorShape`] for weights that do not fit it.
    pub fn load(folder: &Path, options: RankerOptions, device: &Device) -> Result<Self> {
        Self::from_source(&config_json(folder)?, &Checkpoint::open(folder)?, options, device)
    }

    /// Checks that a HF folder can be loaded with these options, from its configuration and the headers of its weights:
    /// no weight is read.
    ///
    /// # Errors
    /// As [`Ranker::load`].
    pub fn check(folder: &Path, options: &RankerOptions) -> Result<LlamaConfig> {
        options.check()?;
        let config = LlamaConfig::from_json(&config_json(folder)?)?;
        let network = Network::new(config, options.precision, options.max_tokens)?;
        let checkpoint = Checkpoint::open(folder)?;
        for (name, shape) in store::expected(&network.config, &network.linears()) {
            checkpoint.check(&name, &shape)?;
        }
        Ok(network.config)
    }

    /// Checks that the files of a saved model belong to this ranker and are whole.
    ///
    /// # Errors
    /// [`Error::Safetensors`], [`Error::TensorShape`], [`Error::MissingTensor`] or [`Error::UnknownTensor`].
    pub fn check_saved(&self, files: &[ModelFile]) -> Result<()> {
        let mut weights = files.iter().filter(|f| f.name.ends_with(".safetensors"));
        weights.try_for_each(|f| weights::from_bytes_f32(f.name, &f.bytes)?.expect_like(&self.weights.trainable))
    }

    /// Builds a ranker from the text of a `config.json` and a source of weights.
    ///
    /// # Errors
    /// As [`Ranker::load`].
    pub fn from_source(
        config_json: &str,
        source: &dyn TensorSource,
        mut options: RankerOptions,
        device: &Device,
    ) -> Result<Self> {
        options.check()?;
        let config = LlamaConfig::from_json(config_json)?;
        let network = Network::new(config, options.precision, options.max_tokens)?;
        let free = device.free_bytes().map(|free| free as u64);
        options.dequantize = store::when_decoded(&options, &network.linears(), free);
        let weights = Weights::load(&network.config, &network.linears(), source, &options, device)?;
        tracing::info!(layers = network.config.layers, trained = weights.trainable.elements(), "ranker loaded");
        let footprint = Footprint::of(&network.config, &options)?;
        let room = Room::on(device, &footprint, &options);
        Ok(Self {
            config_json: config_json.to_owned(),
            network,
            weights,
            optimizer: optimizer(&options),
            options,
            footprint,
            room,
            meter: Meter::default(),
        })
    }

    /// The network's configuration.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.network.config
    }

    /// The settings that the ranker was loaded with.
    #[must_use]
    pub fn options(&self) -> &RankerOptions {
        &self.options
    }

    /// What is trained, by name.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.weights.trainable
    }

    /// What is trained, to be changed: what a gang does that takes another member's parameters.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.weights.trainable
    }

    /// The same for the same frozen weights, read by the same build: a checksum, against mistakes and not against forgers.
    ///
    /// # Errors
    /// [`Error::Kernel`] if weights cannot be read from their device.
    pub fn fingerprint(&self) -> Result<u64> {
        self.weights.fingerprint()
    }

    /// What it takes, worked out from its configuration.
    #[must_use]
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// How fast it has computed gradients and scores so far, but for the first of each, in which kernels are compiled and memory
    /// is found.
    #[must_use]
    pub fn paces(&self) -> Paces {
        self.meter.read()
    }

    /// The number of training steps made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Reads tokens that many prompts begin with, to be given to [`Ranker::score`] as often as wanted until the ranker is
    /// trained further.
    ///
    /// # Errors
    /// As [`Ranker::score`].
    pub fn share(&self, ids: &[u32]) -> Result<SharedPrefix> {
        self.network.check_lengths(std::iter::once(ids))?;
        self.network.share(&self.weights, ids)
    }

    /// Has the products of linear layers made of eight bits ([`kernels::fp8`]) from now on: for scoring, since there is no way back
    /// and no gradient. Updates, attention, embeddings and the head stay as they are. What was shared has to be read again.
    ///
    /// # Errors
    /// [`Error::Config`] where everything is trained, or for a weight that is not finite; [`Error::Kernel`] if a device has no
    /// room.
    pub fn cut_to_fp8(&mut self) -> Result<()> {
        self.weights.cut_to_fp8(&self.network.linears())
    }

    /// The logits of the label tokens at the last position of every prompt, in the order of the prompts.
    ///
    /// Prompts that begin with `shared` are computed from its end on, the others as a whole: the bits are the same.
    ///
    /// # Errors
    /// [`Error::Input`] for a prompt that is empty or longer than [`RankerOptions::max_tokens`]; [`Error::Kernel`] for a
    /// token beyond the vocabulary.
    pub fn score(
        &self,
        shared: Option<&SharedPrefix>,
        prompts: &[Vec<u32>],
        label_tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>> {
        self.network.check_lengths(prompts.iter().map(Vec::as_slice))?;
        let (began, mut flops) = (Instant::now(), 0.0);
        let mut scores = vec![Vec::new(); prompts.len()];
        if label_tokens.is_empty() {
            return Ok(scores);
        }
        let (behind, whole): (Vec<usize>, Vec<usize>) =
            (0..prompts.len()).partition(|at| shared.is_some_and(|shared| shared.begins(&prompts[*at])));
        for (shared, places) in [(shared, behind), (None, whole)] {
            let first = shared.map_or(0, SharedPrefix::tokens);
            let length = |at: &usize| prompts[*at].len() - first;
            let mut packs = example::packs(&places, length, self.room.tokens());
            while let Some(pack) = packs.pop() {
                let pass = Pass::behind(first, pack.iter().map(|at| &prompts[*at][first..]));
                let logits = self.network.last_logits(&self.weights, shared, &pass, label_tokens);
                let logits = match logits.and_then(|logits| Ok(logits.to_host()?)) {
                    Err(e)
                        if out_of_memory(&e) && self.room.shrink_tokens(pack.iter().map(length).max().unwrap_or(0)) =>
                    {
                        self.tell_shrunk(&e);
                        packs.extend(example::packs(&pack, length, self.room.tokens()));
                        continue;
                    }
                    logits => logits?,
                };
                for (at, logits) in pack.iter().zip(logits.f32()?.chunks_exact(label_tokens.len())) {
                    scores[*at] = logits.to_vec();
                    let of = |tokens: usize| self.footprint.scoring_flops(tokens as f64);
                    flops += of(prompts[*at].len()) - of(first);
                }
            }
        }
        self.meter.scored(flops, began);
        Ok(scores)
    }

    /// Tokens that are computed together at most: what was asked for, or less since memory ran out.
    #[must_use]
    pub fn micro_batch_tokens(&self) -> usize {
        self.room.tokens()
    }

    fn tell_shrunk(&self, error: &Error) {
        let (tokens, activation_bytes) = (self.room.tokens(), self.room.activation_bytes());
        tracing::warn!(%error, tokens, activation_bytes, "no room: computing less at a time from now on");
    }

    /// The logits of every token of the vocabulary at every position of a sequence: `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As [`Ranker::score`].
    pub fn logits(&self, ids: &[u32]) -> Result<Tensor> {
        self.network.check_lengths(std::iter::once(ids))?;
        self.network.logits(&self.weights, &Pass::new(std::iter::once(ids)))
    }

    /// The mean loss of some examples, without dropout.
    ///
    /// # Errors
    /// As [`Ranker::gradients`].
    pub fn loss(&self, examples: &[Example]) -> Result<f64> {
        self.network.check_lengths(examples.iter().map(|e| e.ids.as_slice()))?;
        let mut total = 0.0;
        for run in example::runs(examples.iter().map(|e| e.ids.len()), self.room.tokens()) {
            let targets = example::targets(&examples[run.clone()], examples.len())?;
            let pass = Pass::new(examples[run].iter().map(|e| e.ids.as_slice()));
            total += weighted(&self.network.losses(&self.weights, &pass, &targets)?, &targets.weights);
        }
        Ok(total)
    }

    /// The gradients of a part of a global batch of `global_examples` and its part of the mean loss, with dropout: the parts of
    /// all ranks and micro-batches add up to the gradient of the mean over the global batch.
    ///
    /// Where the device has no room, less is computed at a time, from now on.
    ///
    /// # Errors
    /// [`Error::Input`] for an example that is empty, too long or has labels outside of it; [`Error::Kernel`] for a token
    /// beyond the vocabulary, or if the device has no room for a single example.
    pub fn gradients(&self, examples: &[Example], global_examples: usize) -> Result<(Params, f64)> {
        self.network.check_lengths(examples.iter().map(|e| e.ids.as_slice()))?;
        let longest = examples.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let began = Instant::now();
        loop {
            // A pass that fails may have added a part of its gradients already: they are summed anew.
            match self.sum_gradients(examples, global_examples) {
                Err(e)
                    if out_of_memory(&e) && self.room.shrink(longest, &self.network.config, self.options.precision) =>
                {
                    self.tell_shrunk(&e);
                }
                outcome => {
                    let summed = outcome?;
                    let flops = examples.iter().map(|e| self.footprint.training_flops(e.ids.len() as f64)).sum();
                    self.meter.trained(flops, began);
                    return Ok(summed);
                }
            }
        }
    }

    fn sum_gradients(&self, examples: &[Example], global_examples: usize) -> Result<(Params, f64)> {
        let mut grads = self.weights.trainable.zeros_like()?;
        let mut total = 0.0;
        for run in example::runs(examples.iter().map(|e| e.ids.len()), self.room.tokens()) {
            let examples = &examples[run];
            let targets = example::targets(examples, global_examples)?;
            let pass = Pass::new(examples.iter().map(|e| e.ids.as_slice()))
                .with_dropout(self.options.seed, examples.iter().map(|e| e.key));
            let room = self.room.activation_bytes();
            let losses = self.network.gradients(&self.weights, &pass, &targets, room, &mut grads)?;
            total += weighted(&losses, &targets.weights);
        }
        Ok((grads, total))
    }

    /// Updates what is trained with the gradients of a whole batch and returns their norm before clipping.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for gradients of other parameters.
    pub fn update(&mut self, grads: &Params, learning_rate: f32) -> Result<f64> {
        self.optimizer.set_learning_rate(learning_rate);
        self.optimizer.step(&mut self.weights.trainable, grads)
    }

    /// One step over a whole batch: gradients by micro-batches, clipping, AdamW.
    ///
    /// # Errors
    /// As [`Ranker::gradients`].
    pub fn train_step(&mut self, batch: &[Example], learning_rate: f32) -> Result<StepReport> {
        let (grads, loss) = self.gradients(batch, batch.len())?;
        let grad_norm = self.update(&grads, learning_rate)?;
        Ok(StepReport { loss, grad_norm, tokens: batch.iter().map(|e| e.ids.len()).sum() })
    }

    /// Parameters and optimiser; training that goes on from them gives the same bits.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if they cannot be written.
    pub fn save_state(&self) -> Result<State> {
        Ok(State { params: weights::to_bytes(&self.weights.trainable)?, optimizer: self.optimizer.save()? })
    }

    /// Goes back to what [`Ranker::save_state`] gave.
    ///
    /// # Errors
    /// [`Error::TensorShape`], [`Error::MissingTensor`] or [`Error::UnknownTensor`] if the state belongs to another
    /// network or to other low-rank updates.
    pub fn load_state(&mut self, state: &State) -> Result<()> {
        let params = weights::from_bytes_f32("ranker state", &state.params)?;
        params.expect_like(&self.weights.trainable)?;
        let params = params.beside(&self.weights.trainable)?;
        self.optimizer = AdamW::load(self.optimizer.config().clone(), &state.optimizer, &params)?;
        self.weights.trainable = params;
        Ok(())
    }

    /// Puts an adapter in PEFT's layout in place of the present low-rank updates and starts the optimiser anew.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that are not supported; [`Error::Adapter`] if it belongs to another network.
    pub fn load_adapter(&mut self, config_json: &str, tensors: &[u8]) -> Result<()> {
        if matches!(self.options.trainable, Trainable::Full) {
            return Err(Error::Config("an adapter needs a frozen base: ranker.trainable = \"lora\"".to_owned()));
        }
        let adapter = Adapter::from_bytes(config_json, tensors)?;
        let linears = self.network.linears();
        self.weights.begin_lora(&adapter.options, &linears, self.options.seed)?;
        let fits = adapter.factors().expect_like(&self.weights.trainable);
        fits.map_err(|e| Error::Adapter(format!("{e}; it names `{}` as its base", adapter.base)))?;
        self.weights.trainable = adapter.factors().beside(&self.weights.trainable)?;
        self.optimizer = optimizer(&self.options);
        Ok(())
    }

    /// The model as files: an adapter in PEFT's layout that names `base`, or, if everything was trained, a HF checkpoint
    /// in `dtype`.
    ///
    /// # Errors
    /// [`Error::Config`] if nothing was trained.
    pub fn save(&self, base: &str, dtype: Dtype) -> Result<Vec<ModelFile>> {
        if let Some(lora) = &self.weights.lora {
            return Ok(vec![
                ModelFile { name: ADAPTER_CONFIG_FILE, bytes: adapter::config_json(lora, base).into_bytes() },
                ModelFile { name: ADAPTER_WEIGHTS_FILE, bytes: weights::to_bytes(&self.weights.trainable)? },
            ]);
        }
        if self.weights.trainable.is_empty() {
            return Err(Error::Config("nothing was trained, so there is nothing to save".to_owned()));
        }
        let cast = self.weights.trainable.iter().map(|(n, t)| Ok((n.to_owned(), weights::cast(t, dtype)?)));
        let tensors = cast.collect::<Result<Params>>()?;
        Ok(vec![
            ModelFile { name: "config.json", bytes: self.config_json.clone().into_bytes() },
            ModelFile { name: "model.safetensors", bytes: weights::to_bytes(&tensors)? },
        ])
    }
}

fn config_json(folder: &Path) -> Result<String> {
    let path = folder.join("config.json");
    std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// The optimiser of QLoRA's recipe: AdamW without weight decay.
fn optimizer(options: &RankerOptions) -> AdamW {
    AdamW::new(AdamWConfig {
        learning_rate: 0.0,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        no_decay: Vec::new(),
        max_grad_norm: options.max_grad_norm,
    })
}

fn out_of_memory(error: &Error) -> bool {
    matches!(error, Error::Kernel(kernels::Error::Memory { .. }))
}

fn weighted(losses: &[f32], weights: &[f32]) -> f64 {
    losses.iter().zip(weights).map(|(&l, &w)| f64::from(l) * f64::from(w)).sum()
}
