//! train_ranker: QLoRA on prompts whose answer is a letter, the best adapter on validation kept.

use std::collections::HashMap;

use data::artifact::table_prefix;
use data::dataset::{Holdout, training_items};
use data::examples::{Permutation, Question, Seen, TrainingPrefixes, choose_candidates};
use data::job::{self, Negatives, Split, Stage};
use data::metrics::{Metric, rank_of};
use data::tables::{CandidateRow, Reader, Table};
use model::ranker::{Example, ModelFile, Ranker, Schedule, State};
use rayon::prelude::*;
use serde_json::json;

use crate::checkpoint::{self, Checkpoint};
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::{Population, User, read_shard};
use crate::ranking::{Prompts, options};
use crate::tasks::rank::numbers;
use crate::training::{Rules, Trainee, train};
use crate::{Error, Result};

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
    let validation = Validation::open(cx, &population, &prompts)?;
    let settings = cx.job.ranker.clone();
    let rules = rules(&settings, &examples);
    let mut trainee = Tuning::new(cx, &settings, &prompts, &examples, &validation, rules.steps)?;
    let course = train(cx, &rules, &mut trainee)?;
    judge(&settings, &course, &validation)?;
    let mut output = Output::default();
    for file in &trainee.best {
        output.file(file.name, file.bytes.clone());
    }
    output.stats.rows = course.step * u64::from(settings.batch_size);
    course.describe("best_ndcg@10", &mut output.stats);
    output.stats.notes.insert("retriever_order_ndcg@10".to_owned(), json!(validation.order()));
    output.stats.notes.insert("validation_users".to_owned(), json!(validation.answers.len()));
    cx.commit(0, output)?;
    checkpoint::clear(cx);
    Ok(())
}

fn rules(settings: &job::Ranker, examples: &Examples<'_>) -> Rules {
    let per_epoch = examples.prefixes.len().div_ceil(u64::from(settings.batch_size));
    let all = per_epoch * u64::from(settings.max_epochs);
    Rules {
        stage: Stage::TrainRanker,
        steps: if settings.max_steps == 0 { all } else { all.min(u64::from(settings.max_steps)) },
        validate_every: settings.validate_every,
        patience: settings.patience,
        metric: "N@10",
        learning_rate: ("ranker.learning_rate", settings.learning_rate),
    }
}

/// Warns of a ranker that is worse than the order it was given, or fails where the job forbids that.
fn judge(settings: &job::Ranker, course: &Course, validation: &Validation) -> Result<()> {
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
        tracing::warn!(steps = course.step, ranker, retriever, "{what}");
    }
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
    let reader: Reader<CandidateRow> = cx.wait(Reader::open(&cx.store, &table_prefix(Table::Candidates, &digest)))?;
    let places: HashMap<&str, usize> = users.iter().enumerate().map(|(i, u)| (u.id.as_str(), i)).collect();
    let mut retrieved = HashMap::new();
    for part in 0..reader.len() {
        cx.check()?;
        for row in &cx.wait(reader.part(part))? {
            if let (Some(user), Some(length)) = (places.get(row.user_id.as_str()), row.position) {
                retrieved.insert((*user, length as usize), numbers(population, row)?);
            }
        }
    }
    Ok(retrieved)
}

/// Validation users whose held-out item is among the candidates, as prompts.
#[derive(Default)]
struct Validation {
    prompts: Vec<Vec<u32>>,
    /// Where the held-out item stands among the candidates, from 0, and how many candidates there are.
    answers: Vec<(usize, usize)>,
}

impl Validation {
    fn open(cx: &Context, population: &Population, prompts: &Prompts) -> Result<Self> {
        let digest = cx.input(Stage::Retrieve, Some(Split::Validation))?;
        let mut this = Self::default();
        for shard in 0..population.shards() {
            cx.check()?;
            let users = population.shard(cx, shard)?;
            let rows = read_shard(cx, Stage::Retrieve, &digest, shard, &users, |r: &CandidateRow| &r.user_id)?;
            this.add(population, prompts, &users, &rows)?;
        }
        Ok(this)
    }

    fn add(&mut self, population: &Population, prompts: &Prompts, users: &[User], rows: &[CandidateRow]) -> Result<()> {
        let place = |user: &User, row: &CandidateRow| {
            let target = Holdout::of(&user.items, Split::Validation).target.map(|t| population.catalogue.id(*t));
            Some((rank_of(&row.items, target?)? as usize - 1, row.items.len()))
        };
        let subset: Vec<_> =
            users.iter().zip(rows).filter_map(|(user, row)| Some((user, row, place(user, row)?))).collect();
        let build = |(user, row, _): &(&User, &CandidateRow, _)| {
            let history = Holdout::of(&user.items, Split::Validation).history;
            Ok(prompts.prompt(population, &user.id, history, &numbers(population, row)?)?.ids)
        };
        self.prompts.extend(subset.par_iter().map(build).collect::<Result<Vec<_>>>()?);
        self.answers.extend(subset.iter().map(|(_, _, answer)| *answer));
        Ok(())
    }

    /// NDCG@10 of the retriever's own order on these users, if there are any.
    fn order(&self) -> Option<f64> {
        mean(self.answers.iter().map(|(answer, _)| gain(*answer)))
    }

    /// NDCG@10 of a ranker over these users.
    fn ndcg(&self, cx: &Context, ranker: &Ranker, labels: &[u32]) -> Result<Option<f64>> {
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

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.sum::<f64>() / n as f64)
}

/// The ranker in training.
struct Tuning<'a> {
    settings: &'a job::Ranker,
    prompts: &'a Prompts,
    examples: &'a Examples<'a>,
    validation: &'a Validation,
    schedule: Schedule,
    ranker: Ranker,
    /// The files of the model that is kept.
    best: Vec<ModelFile>,
}

impl<'a> Tuning<'a> {
    fn new(
        cx: &Context,
        settings: &'a job::Ranker,
        prompts: &'a Prompts,
        examples: &'a Examples<'a>,
        validation: &'a Validation,
        total_steps: u64,
    ) -> Result<Self> {
        let ranker = Ranker::load(settings.base.as_ref(), options(&cx.job)?)?;
        let schedule = Schedule {
            learning_rate: settings.learning_rate as f32,
            warmup_steps: u64::from(settings.warmup_steps),
            total_steps,
        };
        Ok(Self { settings, prompts, examples, validation, schedule, ranker, best: Vec::new() })
    }

    fn model_files(&self) -> Result<Vec<ModelFile>> {
        Ok(self.ranker.save(&self.settings.base, kernels::Dtype::F32)?)
    }
}

impl Trainee for Tuning<'_> {
    fn step(&mut self, step: u64) -> Result<f64> {
        let batch = self.examples.batch(self.prompts, step, u64::from(self.settings.batch_size))?;
        Ok(self.ranker.train_step(&batch, self.schedule.at(step))?.loss)
    }

    fn validate(&self, cx: &Context) -> Result<Option<f64>> {
        self.validation.ndcg(cx, &self.ranker, self.prompts.verbalizer.tokens())
    }

    fn keep(&mut self, _: &Context) -> Result<()> {
        self.best = self.model_files()?;
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let state = self.ranker.save_state()?;
        let present = [("params.safetensors", state.params), ("optimizer.safetensors", state.optimizer)];
        let present = present.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
        let best = self.best.iter().map(|f| (format!("best-{}", f.name), f.bytes.clone()));
        Ok(present.chain(best).collect())
    }

    fn restore(&mut self, cx: &Context, from: &Checkpoint<Course>) -> Result<()> {
        let file = |name: &str| Ok::<_, Error>(from.file(cx, name)?.to_vec());
        let state = State { params: file("params.safetensors")?, optimizer: file("optimizer.safetensors")? };
        let names = self.model_files()?.into_iter().map(|f| f.name);
        let best = match from.manifest.best_step {
            0 => Vec::new(),
            _ => names
                .map(|name| Ok(ModelFile { name, bytes: file(&format!("best-{name}"))? }))
                .collect::<Result<_>>()?,
        };
        self.ranker.load_state(&state)?;
        self.best = best;
        Ok(())
    }
}
