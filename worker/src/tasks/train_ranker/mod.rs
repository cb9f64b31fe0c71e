//! train_ranker: QLoRA on prompts whose answer is a letter, the best adapter on validation kept.

mod examples;
mod validation;

use std::collections::BTreeMap;

use data::artifact::Digest;
use data::examples::deal;
use data::job::{self, Stage};
use kernels::collective::{Bucket, Collective, Tree};
use kernels::{Device, Tensor};
use model::ranker::{Example, ModelFile, Ranker, Schedule, State};
use serde_json::json;

use crate::calibration::{self, Answered, Calibration, gain};
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::gang::Word;
use crate::planning::measured;
use crate::population::Population;
use crate::ranking::{Prompts, options};
use crate::snapshot::Snapshot;
use crate::training::{Rules, Sliced, Trainee, about, slices, train};
use crate::{Error, Result};
use examples::Examples;
use validation::Validation;

/// Trains and commits the adapter.
pub(crate) fn run(cx: &mut Context, device: &Device) -> Result<()> {
    let population = Population::open(cx)?;
    let users = population.users(cx)?;
    let prompts = Prompts::open(cx, &population)?;
    let examples = Examples::open(cx, &population, &users)?;
    let validation = Validation::open(cx, &population, &prompts)?;
    let settings = cx.job.ranker.clone();
    let rules = rules(&settings, &examples);
    let ranker = Ranker::load(settings.base.as_ref(), options(&cx.job, !device.is_cpu())?, device)?;
    let mut trainee = Tuning::new((ranker, device), &settings, &prompts, &examples, &validation, rules.steps);
    train(cx, device, &rules, &mut trainee)
}

fn rules(settings: &job::Ranker, examples: &Examples<'_>) -> Rules {
    Rules {
        stage: Stage::TrainRanker,
        steps: settings.steps(examples.prefixes.len()),
        validate_every: settings.validate_every,
        patience: settings.patience,
        metric: "N@10",
        learning_rate: ("ranker.learning_rate", settings.learning_rate),
    }
}

/// Warns of a ranker that is worse than the order it was given, or fails where the job forbids that.
fn judge(settings: &job::Ranker, course: &Course, validation: &Validation<'_>) -> Result<()> {
    let (Some(ranker), Some(retriever)) = (course.best, validation.order()) else {
        tracing::warn!(
            "no validation user has the held-out item among the candidates: the last step's weights are kept"
        );
        return Ok(());
    };
    if ranker < retriever && settings.require_lift {
        return Err(Error::NoLift { ranker, retriever });
    }
    if ranker < retriever {
        let what = "the ranker is worse than the retriever's own order on validation users (NDCG@10)";
        tracing::warn!(steps = course.step, "{what}: {ranker:.4} against {retriever:.4}");
    }
    Ok(())
}

/// The ranker in training.
struct Tuning<'a> {
    settings: &'a job::Ranker,
    device: &'a Device,
    prompts: &'a Prompts,
    examples: &'a Examples<'a>,
    validation: &'a Validation<'a>,
    schedule: Schedule,
    /// The present step, its examples, and which of them each of its slices has.
    step: u64,
    batch: Vec<Example>,
    slices: Vec<Vec<usize>>,
    ranker: Ranker,
    /// The files of the model that is kept.
    best: Vec<ModelFile>,
    /// What this member has heard of validation users by parts: from the present weights, and from those that are kept.
    answered: [BTreeMap<usize, Vec<Answered>>; 2],
}

impl<'a> Tuning<'a> {
    fn new(
        (ranker, device): (Ranker, &'a Device),
        settings: &'a job::Ranker,
        prompts: &'a Prompts,
        examples: &'a Examples<'a>,
        validation: &'a Validation<'a>,
        total_steps: u64,
    ) -> Self {
        let schedule = Schedule {
            learning_rate: settings.learning_rate as f32,
            warmup_steps: u64::from(settings.warmup_steps),
            total_steps,
        };
        let (step, batch, slices, best) = (0, Vec::new(), Vec::new(), Vec::new());
        let answered = Default::default();
        Self { settings, device, prompts, examples, validation, schedule, step, batch, slices, ranker, best, answered }
    }

    /// Fits what validation says of the weights that are kept. Only what other members have heard is asked for again.
    fn fit(&mut self, beat: &dyn Fn()) -> Result<Option<Calibration>> {
        let [_, mut heard] = std::mem::take(&mut self.answered);
        let missing: Vec<usize> = (0..self.validation.chunks()).filter(|chunk| !heard.contains_key(chunk)).collect();
        let kept = self.best.iter().find(|file| file.name.ends_with(".safetensors"));
        if let Some(kept) = kept.filter(|_| !missing.is_empty()) {
            let params = model::weights::from_bytes_f32(kept.name, &kept.bytes)?.beside(self.ranker.params())?;
            // The last step is what others may still want to have.
            let present = std::mem::replace(self.ranker.params_mut(), params);
            let asked = missing.into_iter().try_for_each(|chunk| {
                heard.insert(chunk, self.validation.answered(chunk, &self.ranker)?);
                beat();
                Ok::<_, Error>(())
            });
            *self.ranker.params_mut() = present;
            asked?;
        }
        Ok(Calibration::fit(&heard.into_values().flatten().collect::<Vec<_>>()))
    }

    fn model_files(&self) -> Result<Vec<ModelFile>> {
        Ok(self.ranker.save(&self.settings.base, kernels::Dtype::F32)?)
    }
}

impl Sliced for Tuning<'_> {
    fn begin(&mut self, step: u64) -> Result<usize> {
        self.batch = self.examples.batch(self.prompts, step, u64::from(self.settings.batch_size))?;
        let lengths: Vec<usize> = self.batch.iter().map(|example| example.ids.len()).collect();
        (self.step, self.slices) = (step, deal(&lengths, self.settings.slices as usize));
        Ok(self.slices.len())
    }

    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)> {
        let examples: Vec<Example> = self.slices[slice].iter().map(|place| self.batch[*place].clone()).collect();
        let (grads, loss) = self.ranker.gradients(&examples, self.batch.len())?;
        Ok((grads.into_bucket()?, loss))
    }
}

impl Trainee for Tuning<'_> {
    fn learn(&mut self, gang: &mut dyn Collective, step: u64, beat: &dyn Fn()) -> Result<(Tree, Word)> {
        slices(self, gang, step, beat)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.ranker.params().tensors().collect()
    }

    fn apply(&mut self, _: &mut dyn Collective, total: Bucket) -> Result<()> {
        let grads = self.ranker.params().named(total)?;
        self.ranker.update(&grads, self.schedule.at(self.step))?;
        self.answered[0].clear();
        Ok(())
    }

    fn chunks(&self) -> usize {
        self.validation.chunks()
    }

    fn validate(&mut self, cx: &Context, chunk: usize) -> Result<f64> {
        cx.check()?;
        let answered = self.validation.answered(chunk, &self.ranker)?;
        let sum = answered.iter().map(|user| gain(&user.logits, user.answer)).sum();
        self.answered[0].insert(chunk, answered);
        Ok(sum)
    }

    fn figure(&self, sums: &[f64]) -> Option<f64> {
        self.validation.ndcg(sums)
    }

    fn keep(&mut self) -> Result<()> {
        self.best = self.model_files()?;
        self.answered[1] = std::mem::take(&mut self.answered[0]);
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let state = self.ranker.save_state()?;
        let present = [("params.safetensors", state.params), ("optimizer.safetensors", state.optimizer)];
        let present = present.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
        let best = self.best.iter().map(|f| (format!("best-{}", f.name), f.bytes.clone()));
        Ok(present.chain(best).collect())
    }

    fn restore(&mut self, from: &Snapshot) -> Result<()> {
        let file = |name: &str| Ok::<_, Error>(from.file(name)?.to_vec());
        let state = State { params: file("params.safetensors")?, optimizer: file("optimizer.safetensors")? };
        let names = self.model_files()?.into_iter().map(|f| f.name);
        let best: Vec<ModelFile> = match from.course.best_step {
            0 => Vec::new(),
            _ => names
                .map(|name| Ok(ModelFile { name, bytes: file(&format!("best-{name}"))? }))
                .collect::<Result<_>>()?,
        };
        self.ranker.check_saved(&best)?;
        self.ranker.load_state(&state)?;
        (self.best, self.answered) = (best, Default::default());
        Ok(())
    }

    fn loaded(&self) -> Result<Digest> {
        Ok(Digest::of_bytes(&self.ranker.fingerprint()?.to_le_bytes()))
    }

    fn about(&self, step: u64) -> String {
        about(self.examples.users(step, u64::from(self.settings.batch_size)).into_iter())
    }

    fn output(&mut self, course: &Course, beat: &dyn Fn()) -> Result<Output> {
        judge(self.settings, course, self.validation)?;
        let mut output = Output::default();
        for file in &self.best {
            output.file(file.name, file.bytes.clone());
        }
        if let Some(fitted) = self.fit(beat)? {
            let text = serde_json::to_vec_pretty(&fitted).map_err(|e| Error::Misfit { what: e.to_string() })?;
            output.file(calibration::FILE, text);
            output.stats.notes.insert("calibration".to_owned(), json!(fitted));
        }
        output.stats.rows = course.step * u64::from(self.settings.batch_size);
        course.describe("best_ndcg@10", &mut output.stats);
        output.stats.notes.insert("cleaned_texts".to_owned(), json!(self.prompts.cleaned()));
        output.stats.notes.insert("micro_batch_tokens".to_owned(), json!(self.ranker.micro_batch_tokens()));
        measured::note(&self.ranker, self.device, &mut output.stats);
        let (order, users) = (self.validation.order(), self.validation.answers.len());
        output.stats.notes.insert("retriever_order_ndcg@10".to_owned(), json!(order));
        output.stats.notes.insert("validation_users".to_owned(), json!(users));
        Ok(output)
    }
}
