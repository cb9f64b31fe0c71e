//! A Llama with four-bit weights and low-rank updates: training steps, and the scores of labels.

use anyhow::Result;
use kernels::{Device, Tensor};
use model::Precision;
use model::checkpoint::TensorSource;
use model::params::Params;
use model::ranker::{Dequantize, Example, LoraOptions, Quantize, Ranker, RankerOptions, State, Trainable};

use super::super::case::Reading;
use super::super::outcome::{Distance, Outcome};
use super::super::prompts::{Problem, Weights};
use super::Ready;

/// The tokens of a text that are trained: a label and the end.
const TRAINED: usize = 2;
/// Values of every gradient that are compared, evenly spread.
const COMPARED: usize = 64;
/// The host is asked for the same where it takes no more than so many operations.
const HOST_FLOPS: f64 = 1e9;

/// A network on a device, and what it was before it was trained: as a job has it there, in bfloat16 and decoded once where there
/// is room. On the host in f32, to be compared with.
pub(super) struct Loaded {
    ranker: Ranker,
    initial: State,
    /// Equal ones are of networks that are equal.
    key: String,
}

impl Loaded {
    /// The network of a problem, as it is at first: the kept one, if that is the same.
    fn new(problem: &Problem, weights: &Weights, kept: Option<Self>, device: &Device) -> Result<Self> {
        let key =
            serde_json::json!([problem.config, problem.rank, problem.alpha, problem.micro_batch_tokens]).to_string();
        if let Some(mut kept) = kept.filter(|kept| kept.key == key) {
            kept.ranker.load_state(&kept.initial)?;
            return Ok(kept);
        }
        let options = RankerOptions {
            quantize: Quantize::Nf4,
            dequantize: Dequantize::Auto,
            precision: if device.is_cpu() { Precision::F32 } else { Precision::Bf16 },
            trainable: Trainable::Lora(LoraOptions {
                rank: problem.rank,
                alpha: problem.alpha,
                dropout: 0.0,
                ..LoraOptions::default()
            }),
            max_grad_norm: Some(problem.max_grad_norm),
            micro_batch_tokens: problem.micro_batch_tokens,
            ..RankerOptions::default()
        };
        let mut ranker = Ranker::from_source(&problem.config.to_string(), weights, options, device)?;
        // Both factors of the updates are drawn: with a second one of zeros the first would have no gradient.
        for (name, tensor) in ranker.params_mut().iter_mut() {
            *tensor = device.put(&weights.shaped(name, tensor.shape())?)?;
        }
        Ok(Self { initial: ranker.save_state()?, ranker, key })
    }
}

/// A training step on all prompts.
pub(super) struct Step {
    loaded: Loaded,
    examples: Vec<Example>,
    learning_rate: f32,
    /// The same on the host, if that is cheap.
    host: Option<Loaded>,
}

impl Step {
    pub(super) fn new(reading: &Reading, kept: Option<Loaded>, device: &Device) -> Result<Self> {
        let (problem, weights) = Problem::read(reading.folder.as_ref())?;
        let examples = problem.texts.iter().zip(0..).map(|(text, key)| Example::from_text(text, TRAINED, key));
        Ok(Self {
            loaded: Loaded::new(&problem, &weights, kept, device)?,
            examples: examples.collect::<Result<_, _>>()?,
            learning_rate: problem.learning_rate,
            host: on_host(&problem, &weights, reading)?,
        })
    }
}

impl Ready for Step {
    fn run(&mut self, _turn: usize) -> Result<()> {
        Ok(self.loaded.ranker.train_step(&self.examples, self.learning_rate).map(drop)?)
    }

    /// How far losses and gradients are from those on the host.
    fn error(&mut self) -> Result<Option<f64>> {
        let Some(host) = &mut self.host else { return Ok(None) };
        let wanted = first_step(&mut host.ranker, &self.examples, self.learning_rate)?;
        let found = first_step(&mut self.loaded.ranker, &self.examples, self.learning_rate)?;
        self.loaded.ranker.load_state(&self.loaded.initial)?;
        apart(&found, &wanted)
    }

    fn outcome(&mut self) -> Result<Option<Outcome>> {
        first_step(&mut self.loaded.ranker, &self.examples, self.learning_rate).map(Some)
    }

    fn keep(self: Box<Self>) -> Option<Loaded> {
        Some(self.loaded)
    }
}

/// Losses before and behind an update, and the gradient of that.
fn first_step(ranker: &mut Ranker, examples: &[Example], learning_rate: f32) -> Result<Outcome> {
    let (grads, before) = ranker.gradients(examples, examples.len())?;
    ranker.update(&grads, learning_rate)?;
    let losses = vec![before, ranker.loss(examples)?];
    Ok(Outcome { losses, gradient: some_values(&grads), scores: Vec::new() })
}

/// Values of every tensor, in the order of names.
fn some_values(params: &Params) -> Vec<f64> {
    let of = |tensor: &Tensor| {
        let (values, count) = (tensor.to_f32(), tensor.len().min(COMPARED));
        (0..count).map(|i| f64::from(values[i * values.len() / count])).collect::<Vec<f64>>()
    };
    params.tensors().flat_map(of).collect()
}

/// The labels' scores of all prompts.
pub(super) struct Scores {
    loaded: Loaded,
    prompts: Vec<Vec<u32>>,
    /// What all of them begin with, if anything; it is read in every run.
    beginning: Vec<u32>,
    labels: Vec<u32>,
    /// The same on the host, if that is cheap.
    host: Option<Loaded>,
}

impl Scores {
    pub(super) fn new(reading: &Reading, kept: Option<Loaded>, device: &Device) -> Result<Self> {
        let (problem, weights) = Problem::read(reading.folder.as_ref())?;
        let mut loaded = Loaded::new(&problem, &weights, kept, device)?;
        if reading.fp8 {
            loaded.ranker.cut_to_fp8()?;
            // There is no way back: what comes next loads its own.
            loaded.key.push_str(", in eight bits");
        }
        Ok(Self {
            loaded,
            prompts: problem.texts.iter().map(|text| text[..text.len() - 1].to_vec()).collect(),
            beginning: problem.texts[0][..problem.shared].to_vec(),
            host: on_host(&problem, &weights, reading)?,
            labels: problem.labels,
        })
    }

    fn scores_of(&self, ranker: &Ranker) -> Result<Vec<Vec<f32>>> {
        let shared = (!self.beginning.is_empty()).then(|| ranker.share(&self.beginning)).transpose()?;
        Ok(ranker.score(shared.as_ref(), &self.prompts, &self.labels)?)
    }

    fn outcome_of(&self, ranker: &Ranker) -> Result<Outcome> {
        let scores = self.scores_of(ranker)?;
        let scores = scores.into_iter().map(|scores| scores.into_iter().map(f64::from).collect()).collect();
        Ok(Outcome { scores, ..Outcome::default() })
    }
}

impl Ready for Scores {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.scores_of(&self.loaded.ranker).map(drop)
    }

    /// How far the logits are from those on the host.
    fn error(&mut self) -> Result<Option<f64>> {
        let Some(host) = &self.host else { return Ok(None) };
        apart(&self.outcome_of(&self.loaded.ranker)?, &self.outcome_of(&host.ranker)?)
    }

    fn outcome(&mut self) -> Result<Option<Outcome>> {
        self.outcome_of(&self.loaded.ranker).map(Some)
    }

    fn keep(self: Box<Self>) -> Option<Loaded> {
        Some(self.loaded)
    }
}

fn on_host(problem: &Problem, weights: &Weights, reading: &Reading) -> Result<Option<Loaded>> {
    let flops = super::Case::RankerStep(reading.clone()).work().flops;
    (flops <= HOST_FLOPS).then(|| Loaded::new(problem, weights, None, &Device::cpu(1)?)).transpose()
}

/// The largest of all differences.
fn apart(found: &Outcome, wanted: &Outcome) -> Result<Option<f64>> {
    let distance = Distance::of(found, wanted).map_err(anyhow::Error::msg)?;
    Ok(Some(distance.most()))
}
