//! train_ranker: QLoRA on prompts whose answer is a letter, the best adapter on validation kept.

use std::collections::HashMap;

use data::artifact::table_prefix;
use data::dataset::{Holdout, training_items};
use data::examples::{Permutation, Question, Seen, TrainingPrefixes, choose_candidates};
use data::job::{Negatives, Split, Stage};
use data::metrics::{Metric, rank_of};
use data::tables::{CandidateRow, Table, read_all};
use model::ranker::{Example, ModelFile, Ranker, Schedule, State};
use rayon::prelude::*;
use serde_json::json;

use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::{Population, User};
use crate::ranking::{Prompts, options};
use crate::tasks::rank::numbers;
use crate::{Error, Result, checkpoint};

/// The metric that decides, NDCG@10.
const VALIDATION_K: u32 = 10;
/// The label and the end of text.
const ANSWER_TOKENS: usize = 2;
/// Prompts scored between two looks at the stop signal.
const PROMPTS: usize = 32;

/// Trains and commits the adapter.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let population = Population::open(cx)?;
    let users = population.users(cx)?;
    let prompts = Prompts::open(cx, &population)?;
    let examples = Examples::open(cx, &population, &users)?;
    let validation = Validation::open(cx, &population, &users, &prompts)?;
    let mut trainer = Trainer::start(cx, &prompts, &examples, &validation)?;
    let loss = trainer.train(cx)?;
    trainer.commit(cx, loss)?;
    checkpoint::clear(cx);
    Ok(())
}

/// The training examples: pure functions of (seed, epoch, number).
struct Examples<'a> {
    population: &'a Population,
    users: &'a [User],
    prefixes: TrainingPrefixes,
    seen: Vec<Seen>,
    /// (user, prefix length) → what the retriever proposes there.
    retrieved: HashMap<(usize, usize), Vec<u32>>,
    negatives: Negatives,
    candidates: u32,
    seed: u64,
}

impl<'a> Examples<'a> {
    fn open(cx: &Context, population: &'a Population, users: &'a [User]) -> Result<Self> {
        let prefixes = TrainingPrefixes::new(users.iter().map(|u| training_items(&u.items).len()));
        if prefixes.is_empty() {
            let what =
                "no user has two training items; loosen dataset.min_interactions_per_item or bring longer histories"
                    .to_owned();
            return Err(Error::Nothing { stage: Stage::TrainRanker, what });
        }
        let negatives = cx.job.ranker.negatives;
        let retrieved = if negatives == Negatives::Random { HashMap::new() } else { retrieved(cx, population, users)? };
        let seen = users.iter().map(|u| Seen::new(&u.items)).collect();
        let (candidates, seed) = (cx.job.retriever.candidates, cx.job.seed);
        Ok(Self { population, users, prefixes, seen, retrieved, negatives, candidates, seed })
    }

    fn example(&self, prompts: &Prompts, epoch: u64, number: u64) -> Result<Example> {
        let prefix = self.prefixes.at(number);
        let user = &self.users[prefix.user];
        let (history, answer) = prefix.view(training_items(&user.items));
        let retrieved = self.retrieved.get(&(prefix.user, prefix.length)).map_or(&[][..], Vec::as_slice);
        let question = Question { example: number, answer: *answer, seen: &self.seen[prefix.user], retrieved };
        let items = self.population.catalogue.len();
        let choice = choose_candidates(self.negatives, self.candidates, items, self.seed, epoch, &question)?;
        let prompt = prompts.prompt(self.population, &user.id, history, &choice.items)?;
        let ids = prompts.training_ids(&prompt, choice.answer)?;
        Ok(Example::from_text(&ids, ANSWER_TOKENS, model::retriever::example_key(epoch, number))?)
    }

    /// The examples of one step, the same ones whatever computes them.
    fn batch(&self, prompts: &Prompts, step: u64, size: u64) -> Result<Vec<Example>> {
        let per_epoch = self.prefixes.len().div_ceil(size);
        let (epoch, place) = (step / per_epoch, step % per_epoch);
        let order = Permutation::new(self.prefixes.len(), self.seed, epoch);
        let places: Vec<u64> = (place * size..((place + 1) * size).min(order.len())).collect();
        places.par_iter().map(|p| self.example(prompts, epoch, order.at(*p))).collect()
    }
}

/// The candidates of training prefixes, by user and length.
fn retrieved(cx: &Context, population: &Population, users: &[User]) -> Result<HashMap<(usize, usize), Vec<u32>>> {
    let digest = cx.input(Stage::Retrieve, Some(Split::Train))?;
    let rows: Vec<CandidateRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Candidates, &digest)))?;
    let places: HashMap<&str, usize> = users.iter().enumerate().map(|(i, u)| (u.id.as_str(), i)).collect();
    let mut retrieved = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let (Some(user), Some(length)) = (places.get(row.user_id.as_str()), row.position) {
            retrieved.insert((*user, length as usize), numbers(population, row)?);
        }
    }
    Ok(retrieved)
}

/// Validation users whose held-out item is among the candidates, as prompts.
struct Validation {
    prompts: Vec<Vec<u32>>,
    /// Where the held-out item stands among the candidates, from 0, and how many candidates there are.
    answers: Vec<(usize, usize)>,
    /// NDCG@10 of the retriever's own order on the same users.
    order: f64,
}

impl Validation {
    fn open(cx: &Context, population: &Population, users: &[User], prompts: &Prompts) -> Result<Self> {
        let digest = cx.input(Stage::Retrieve, Some(Split::Validation))?;
        let rows: Vec<CandidateRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Candidates, &digest)))?;
        let (mut tokens, mut answers) = (Vec::new(), Vec::new());
        for (user, row) in users.iter().zip(&rows) {
            let view = Holdout::of(&user.items, Split::Validation);
            let target = view.target.map(|t| population.catalogue.id(*t));
            if let Some(rank) = target.and_then(|t| rank_of(&row.items, t)) {
                tokens.push((user, view.history, numbers(population, row)?));
                answers.push((rank as usize - 1, row.items.len()));
            }
        }
        let prompts = tokens
            .par_iter()
            .map(|(user, history, candidates)| Ok(prompts.prompt(population, &user.id, history, candidates)?.ids))
            .collect::<Result<Vec<_>>>()?;
        let order = mean(answers.iter().map(|(answer, _)| gain(*answer)));
        Ok(Self { prompts, answers, order })
    }

    /// NDCG@10 of a ranker over these users.
    fn ndcg(&self, cx: &Context, ranker: &Ranker, labels: &[u32]) -> Result<f64> {
        let mut gains = Vec::with_capacity(self.answers.len());
        for (prompts, answers) in self.prompts.chunks(PROMPTS).zip(self.answers.chunks(PROMPTS)) {
            cx.check()?;
            for (logits, (answer, candidates)) in ranker.score(prompts, labels)?.iter().zip(answers) {
                // A short list of candidates leaves labels that stand for nothing.
                let logits = &logits[..*candidates];
                let own = logits[*answer];
                if !own.is_finite() {
                    let what = "the ranker's scores are not finite: lower ranker.learning_rate".to_owned();
                    return Err(Error::Nothing { stage: Stage::TrainRanker, what });
                }
                let before = logits.iter().enumerate().filter(|(i, l)| **l > own || (**l == own && i < answer)).count();
                gains.push(gain(before));
            }
        }
        Ok(mean(gains.into_iter()))
    }
}

fn gain(place: usize) -> f64 {
    Metric::Ndcg.of(u32::try_from(place + 1).ok(), VALIDATION_K)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

struct Trainer<'a> {
    prompts: &'a Prompts,
    examples: &'a Examples<'a>,
    validation: &'a Validation,
    schedule: Schedule,
    ranker: Ranker,
    /// The files of the best model so far.
    best: Vec<ModelFile>,
    course: Course,
}

impl<'a> Trainer<'a> {
    /// A fresh training, or the one that the last checkpoint holds.
    fn start(
        cx: &Context,
        prompts: &'a Prompts,
        examples: &'a Examples<'a>,
        validation: &'a Validation,
    ) -> Result<Self> {
        let settings = &cx.job.ranker;
        let ranker = Ranker::load(settings.base.as_ref(), options(&cx.job)?)?;
        let per_epoch = examples.prefixes.len().div_ceil(u64::from(settings.batch_size));
        let all = per_epoch * u64::from(settings.max_epochs);
        let total_steps = if settings.max_steps == 0 { all } else { all.min(u64::from(settings.max_steps)) };
        let schedule = Schedule {
            learning_rate: settings.learning_rate as f32,
            warmup_steps: u64::from(settings.warmup_steps),
            total_steps,
        };
        let best = Vec::new();
        let mut trainer = Self { prompts, examples, validation, schedule, ranker, best, course: Course::default() };
        trainer.resume(cx)?;
        Ok(trainer)
    }

    fn resume(&mut self, cx: &Context) -> Result<()> {
        let Some(found) = checkpoint::latest::<Course>(cx)? else { return Ok(()) };
        let state = State {
            params: found.file(cx, "params.safetensors")?.to_vec(),
            optimizer: found.file(cx, "optimizer.safetensors")?.to_vec(),
        };
        self.ranker.load_state(&state)?;
        if !found.manifest.curve.is_empty() {
            let names = self.files(cx)?.into_iter().map(|f| f.name);
            self.best = names
                .map(|name| Ok(ModelFile { name, bytes: found.file(cx, &format!("best-{name}"))?.to_vec() }))
                .collect::<Result<_>>()?;
        }
        self.course = found.manifest;
        tracing::info!(step = self.course.step, "training resumes from a checkpoint");
        Ok(())
    }

    /// Steps until they or the patience are used up; returns the last loss.
    fn train(&mut self, cx: &mut Context) -> Result<f64> {
        let settings = cx.job.ranker.clone();
        let total = self.schedule.total_steps;
        let mut loss = f64::NAN;
        loop {
            if self.course.validation_due(settings.validate_every, total) {
                self.validate(cx)?;
            }
            if self.course.step >= total || self.course.is_exhausted(settings.patience) {
                return Ok(loss);
            }
            if let Err(stopped) = cx.check() {
                self.save(cx)?;
                return Err(stopped);
            }
            let step = self.course.step;
            let batch = self.examples.batch(self.prompts, step, u64::from(settings.batch_size))?;
            loss = self.ranker.train_step(&batch, self.schedule.at(step))?.loss;
            self.course.step += 1;
            if !loss.is_finite() {
                let (key, learning_rate) = ("ranker.learning_rate", settings.learning_rate);
                return Err(Error::Diverged { stage: Stage::TrainRanker, step, loss, key, learning_rate });
            }
            let m = &self.course;
            cx.progress(m.step, total, "steps", || {
                format!("loss {loss:.3}  best N@10 {:.4} at {}", m.best, m.best_step)
            });
        }
    }

    /// Validates the steps so far. A stop on the way keeps them: the next attempt validates first.
    fn validate(&mut self, cx: &Context) -> Result<()> {
        let ndcg = match self.validation.ndcg(cx, &self.ranker, self.prompts.verbalizer.tokens()) {
            Err(stopped @ Error::Stopped(_)) => {
                self.save(cx)?;
                return Err(stopped);
            }
            outcome => outcome?,
        };
        if self.course.observe(ndcg) {
            self.best = self.files(cx)?;
        }
        self.save(cx)
    }

    fn files(&self, cx: &Context) -> Result<Vec<ModelFile>> {
        Ok(self.ranker.save(&cx.job.ranker.base, kernels::Dtype::F32)?)
    }

    fn save(&self, cx: &Context) -> Result<()> {
        let state = self.ranker.save_state()?;
        let best: Vec<(String, Vec<u8>)> =
            self.best.iter().map(|f| (format!("best-{}", f.name), f.bytes.clone())).collect();
        let mut files = vec![("params.safetensors", state.params), ("optimizer.safetensors", state.optimizer)];
        files.extend(best.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
        checkpoint::save(cx, self.course.step, &self.course, files)
    }

    fn commit(&self, cx: &mut Context, loss: f64) -> Result<()> {
        let (m, order) = (&self.course, self.validation.order);
        if m.best < order {
            if cx.job.ranker.require_lift {
                return Err(Error::NoLift { ranker: m.best, retriever: order });
            }
            tracing::warn!(
                steps = m.step,
                ranker = m.best,
                retriever = order,
                "the ranker is worse than the retriever's own order on validation users (NDCG@10)"
            );
        }
        let mut output = Output::default();
        for file in &self.best {
            output.file(file.name, file.bytes.clone());
        }
        output.stats.rows = m.step * u64::from(cx.job.ranker.batch_size);
        output.stats.steps = m.step;
        let notes = [
            ("steps", json!(m.step)),
            ("best_step", json!(m.best_step)),
            ("best_ndcg@10", json!(m.best)),
            ("retriever_order_ndcg@10", json!(order)),
            ("validation_users", json!(self.validation.answers.len())),
            ("loss", json!(loss)),
            ("curve", json!(m.curve)),
        ];
        output.stats.notes = notes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        cx.progress(m.step, m.step, "steps", || format!("best validation N@10 {:.4} at step {}", m.best, m.best_step));
        cx.commit(0, output)
    }
}
