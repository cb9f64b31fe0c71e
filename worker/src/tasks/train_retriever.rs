//! train_retriever: LRURec on the training sequences, the best checkpoint on validation kept.

use data::dataset::training_items;
use data::examples::Permutation;
use data::job::{Retriever, Split, Stage};
use data::metrics::Metric;
use model::params::AdamW;
use model::retriever::{Dropout, LruRec, LruRecConfig, PackedBatch, example_key, optimizer_config, windows};
use serde_json::json;

use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::{Population, User};
use crate::retrieval::{USERS, retrieve};
use crate::{Error, Result, checkpoint};

/// The metric that early stopping looks at, Recall@10.
const VALIDATION_K: u32 = 10;

/// Trains and commits the model.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let population = Population::open(cx)?;
    let users = population.users(cx)?;
    let settings = cx.job.retriever.clone();
    let mut trainer = Trainer::start(cx, &settings, population.catalogue.len() as usize, &users)?;
    let last = trainer.train(cx)?;
    let mut output = Output::default();
    let best = trainer.best.save()?;
    output.file("model.safetensors", best.weights);
    output.file("config.json", best.config);
    let m = &trainer.course;
    output.stats.rows = trainer.windows.len() as u64;
    output.stats.steps = m.step;
    let notes = [
        ("steps", json!(m.step)),
        ("best_step", json!(m.best_step)),
        ("best_recall@10", json!(m.best)),
        ("loss", json!(last)),
        ("curve", json!(m.curve)),
    ];
    output.stats.notes = notes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    cx.progress(m.step, m.step, "steps", || format!("best validation R@10 {:.4} at step {}", m.best, m.best_step));
    cx.commit(0, output)?;
    checkpoint::clear(cx);
    Ok(())
}

struct Trainer<'a> {
    settings: &'a Retriever,
    seed: u64,
    users: &'a [User],
    /// Training windows: the slices that batches are made of, numbered by their place here.
    windows: Vec<&'a [u32]>,
    model: LruRec,
    optimizer: AdamW,
    best: LruRec,
    course: Course,
}

impl<'a> Trainer<'a> {
    /// A fresh training, or the one that the last checkpoint holds.
    fn start(cx: &Context, settings: &'a Retriever, items: usize, users: &'a [User]) -> Result<Self> {
        let length = settings.max_length as usize;
        let windows: Vec<&[u32]> = users
            .iter()
            .map(|u| training_items(&u.items))
            .flat_map(|items| windows(items.len(), length).into_iter().map(move |w| &items[w]))
            .collect();
        if windows.is_empty() {
            return Err(Error::Nothing { stage: Stage::TrainRetriever, what: "no user has training items".to_owned() });
        }
        let config = LruRecConfig::new(
            items,
            settings.hidden as usize,
            settings.layers as usize,
            settings.dropout as f32,
            length,
        )?;
        let model = LruRec::new(config, cx.job.seed)?;
        let optimizer = AdamW::new(optimizer_config(settings.learning_rate as f32, settings.weight_decay as f32));
        let best = model.clone();
        let mut trainer =
            Self { settings, seed: cx.job.seed, users, windows, model, optimizer, best, course: Course::default() };
        trainer.resume(cx)?;
        Ok(trainer)
    }

    fn resume(&mut self, cx: &Context) -> Result<()> {
        let Some(found) = checkpoint::latest::<Course>(cx)? else { return Ok(()) };
        let items = self.model.config().items;
        let config = found.file(cx, "config.json")?;
        self.model = LruRec::load(&found.file(cx, "model.safetensors")?, &config, items)?;
        self.best = LruRec::load(&found.file(cx, "best.safetensors")?, &config, items)?;
        let optimizer = found.file(cx, "optimizer.safetensors")?;
        self.optimizer = AdamW::load(self.optimizer.config().clone(), &optimizer, self.model.params())?;
        self.course = found.manifest;
        tracing::info!(step = self.course.step, "training resumes from a checkpoint");
        Ok(())
    }

    /// Steps until the epochs or the patience are used up; returns the last loss.
    fn train(&mut self, cx: &mut Context) -> Result<f64> {
        let per_epoch = self.windows.len().div_ceil(self.settings.batch_size as usize) as u64;
        let total = per_epoch * u64::from(self.settings.max_epochs);
        let mut loss = f64::NAN;
        loop {
            if self.course.validation_due(self.settings.validate_every, total) {
                self.validate(cx)?;
            }
            if self.course.step >= total || self.course.is_exhausted(self.settings.patience) {
                return Ok(loss);
            }
            if let Err(stopped) = cx.check() {
                self.save(cx)?;
                return Err(stopped);
            }
            loss = self.step(per_epoch)?;
            let m = &self.course;
            cx.progress(m.step, total, "steps", || {
                format!("loss {loss:.3}  best R@10 {:.4} at {}", m.best, m.best_step)
            });
        }
    }

    fn step(&mut self, per_epoch: u64) -> Result<f64> {
        let (epoch, place) = (self.course.step / per_epoch, self.course.step % per_epoch);
        let order = Permutation::new(self.windows.len() as u64, self.seed, epoch);
        let batch = u64::from(self.settings.batch_size);
        let examples = (place * batch..((place + 1) * batch).min(order.len())).map(|i| order.at(i));
        let windows = examples.map(|e| (self.windows[e as usize], example_key(epoch, e)));
        let batch = PackedBatch::train(windows, self.settings.max_length as usize);
        let dropout = Dropout { seed: self.seed, rate: self.settings.dropout as f32 };
        let report = self.model.train_step(&batch, &mut self.optimizer, dropout)?;
        self.course.step += 1;
        if !report.loss.is_finite() {
            return Err(Error::Diverged {
                stage: Stage::TrainRetriever,
                step: self.course.step,
                loss: report.loss,
                key: "retriever.learning_rate",
                learning_rate: self.settings.learning_rate,
            });
        }
        Ok(report.loss)
    }

    /// Validates the steps so far. A stop on the way keeps them: the next attempt validates first.
    fn validate(&mut self, cx: &Context) -> Result<()> {
        let recall = match self.recall(cx) {
            Err(stopped @ Error::Stopped(_)) => {
                self.save(cx)?;
                return Err(stopped);
            }
            outcome => outcome?,
        };
        if self.course.observe(recall) {
            self.best = self.model.clone();
        }
        self.save(cx)
    }

    /// Recall@10 of the validation items over all users.
    fn recall(&self, cx: &Context) -> Result<f64> {
        let mut hits = 0.0;
        for users in self.users.chunks(USERS) {
            cx.check()?;
            let ranks = if self.settings.validation_excludes_history {
                retrieve(&self.model, users, Split::Validation, 1)?.ranks
            } else {
                self.ranks_of_everything(users)?
            };
            hits += ranks.iter().map(|r| Metric::Recall.of(Some(*r), VALIDATION_K)).sum::<f64>();
        }
        Ok(hits / self.users.len() as f64)
    }

    /// Ranks as the reference validates: the history and the padding compete too.
    fn ranks_of_everything(&self, users: &[User]) -> Result<Vec<u32>> {
        let views: Vec<_> = users.iter().map(|u| data::dataset::Holdout::of(&u.items, Split::Validation)).collect();
        let batch = PackedBatch::score(views.iter().map(|v| v.history), self.settings.max_length as usize);
        let targets: Vec<u32> = views.iter().filter_map(|v| v.target.copied()).collect();
        Ok(self.model.validation_ranks(&self.model.encode(&batch)?, &targets)?)
    }

    fn save(&self, cx: &Context) -> Result<()> {
        let model = self.model.save()?;
        let files = vec![
            ("model.safetensors", model.weights),
            ("config.json", model.config),
            ("best.safetensors", self.best.save()?.weights),
            ("optimizer.safetensors", self.optimizer.save()?),
        ];
        checkpoint::save(cx, self.course.step, &self.course, files)
    }
}
