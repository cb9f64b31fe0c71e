//! train_retriever: LRURec on the training sequences, the best checkpoint on validation kept.

use data::dataset::{Holdout, KnownItems, training_items};
use data::examples::{Permutation, deal};
use data::job::{self, Split, Stage};
use data::metrics::Metric;
use kernels::collective::Bucket;
use kernels::{Device, Tensor};
use model::params::{AdamW, Params};
use model::retriever::{
    Dropout, LruRec, LruRecConfig, PackedBatch, Recordings, example_key, optimizer_config, windows,
};

use crate::checkpoint::{self, Checkpoint};
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::{Population, User};
use crate::retrieval::{ITEM_IDS_FILE, USERS, check_candidates, item_ids, retrieve};
use crate::training::{Rules, Trainee, train};
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// The metric that early stopping looks at, Recall@10.
const VALIDATION_K: u32 = 10;

/// Trains and commits the model.
pub(crate) fn run(cx: &mut Context, device: &Device) -> Result<()> {
    let population = Population::open(cx)?;
    let users = population.users(cx)?;
    let settings = cx.job.retriever.clone();
    if cx.job.runs(Stage::Retrieve) {
        check_candidates(cx, &population)?; // before the training, and not behind it
    }
    let known = KnownItems::all(&population.catalogue);
    let mut trainee = Retriever::new(cx.job.seed, &settings, &known, &users, device)?;
    let rules = Rules {
        stage: Stage::TrainRetriever,
        steps: trainee.steps_per_epoch() * u64::from(settings.max_epochs),
        validate_every: settings.validate_every,
        patience: settings.patience,
        metric: "R@10",
        learning_rate: ("retriever.learning_rate", settings.learning_rate),
    };
    let course = train(cx, &rules, &mut trainee)?;
    let mut output = Output::default();
    let best = trainee.best.save()?;
    output.file("model.safetensors", best.weights);
    output.file("config.json", best.config);
    output.file(ITEM_IDS_FILE, item_ids(&population.catalogue));
    output.stats.rows = trainee.windows.len() as u64;
    course.describe("best_recall@10", &mut output.stats);
    cx.commit(0, output)?;
    checkpoint::clear(cx);
    Ok(())
}

/// LRURec in training.
struct Retriever<'a> {
    settings: &'a job::Retriever,
    seed: u64,
    known: &'a KnownItems,
    users: &'a [User],
    /// Training windows: the slices that batches are made of, numbered by their place here.
    windows: Vec<&'a [u32]>,
    device: &'a Device,
    recordings: Recordings,
    /// Those of the present step.
    slices: Vec<PackedBatch>,
    /// The gradients of the present slice.
    grads: Params,
    model: LruRec,
    optimizer: AdamW,
    best: LruRec,
}

impl<'a> Retriever<'a> {
    fn new(
        seed: u64,
        settings: &'a job::Retriever,
        known: &'a KnownItems,
        users: &'a [User],
        device: &'a Device,
    ) -> Result<Self> {
        let length = settings.max_length as usize;
        let windows: Vec<&[u32]> = users
            .iter()
            .map(|u| training_items(&u.items))
            .flat_map(|items| windows(items.len(), length).into_iter().map(move |w| &items[w]))
            .collect();
        if windows.is_empty() {
            return Err(Error::Nothing { stage: Stage::TrainRetriever, what: "no user has training items".to_owned() });
        }
        let (hidden, layers) = (settings.hidden as usize, settings.layers as usize);
        let items = known.len();
        let config = LruRecConfig::new(items, hidden, layers, settings.dropout as f32, length)?;
        let model = LruRec::new(config, seed)?.on(device)?;
        let optimizer = AdamW::new(optimizer_config(settings.learning_rate as f32, settings.weight_decay as f32));
        let best = model.clone();
        let (recordings, grads) = (Recordings::default(), model.params().zeros_like()?);
        Ok(Self {
            settings,
            seed,
            known,
            users,
            windows,
            device,
            recordings,
            slices: Vec::new(),
            grads,
            model,
            optimizer,
            best,
        })
    }

    fn steps_per_epoch(&self) -> u64 {
        self.windows.len().div_ceil(self.settings.batch_size as usize) as u64
    }

    /// Ranks as the reference validates: the history and the padding compete too.
    fn ranks_of_everything(&self, users: &[User]) -> Result<Vec<u32>> {
        let views: Vec<_> = users.iter().map(|u| Holdout::of(&u.items, Split::Validation)).collect();
        let batch = PackedBatch::score(views.iter().map(|v| v.history), self.settings.max_length as usize);
        let targets: Vec<u32> = views.iter().filter_map(|v| v.target.copied()).collect();
        Ok(self.model.validation_ranks(&self.model.encode(&batch)?, &targets)?)
    }
}

impl Trainee for Retriever<'_> {
    fn begin(&mut self, step: u64) -> Result<usize> {
        let (epoch, place) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let order = Permutation::new(self.windows.len() as u64, self.seed, epoch);
        let batch = u64::from(self.settings.batch_size);
        let examples = (place * batch..((place + 1) * batch).min(order.len())).map(|i| order.at(i));
        let windows: Vec<_> = examples.map(|e| (self.windows[e as usize], example_key(epoch, e))).collect();
        let lengths: Vec<usize> = windows.iter().map(|(window, _)| window.len()).collect();
        let pack = |slice: Vec<usize>| {
            let windows = slice.into_iter().map(|place| windows[place]);
            PackedBatch::train(windows, self.settings.max_length as usize)
        };
        self.slices = deal(&lengths, self.settings.slices as usize).into_iter().map(pack).collect();
        Ok(self.slices.len())
    }

    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)> {
        let rows = self.slices.iter().map(PackedBatch::taught).sum();
        let dropout = Dropout { seed: self.seed, rate: self.settings.dropout as f32 };
        let batch = self.slices[slice].clone();
        // A device replays what it knows: the memory that it writes to has to stay where it is.
        let (recordings, grads) = (&mut self.recordings, &mut self.grads);
        let loss = self.model.gradients_on(self.device, recordings, batch, (rows, dropout), grads)?;
        let grads = match self.device.is_cpu() {
            true => std::mem::replace(&mut self.grads, self.model.params().zeros_like()?),
            false => self.grads.copied()?,
        };
        Ok((grads.into_bucket()?, loss / rows as f64))
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.model.params().tensors().collect()
    }

    fn apply(&mut self, total: Bucket) -> Result<()> {
        let grads = self.model.params().named(total)?;
        self.model.update(&grads, &mut self.optimizer)?;
        Ok(())
    }

    /// Recall@10 of the validation items over all users.
    fn validate(&self, cx: &Context) -> Result<Option<f64>> {
        if !self.model.params().is_finite() {
            let what = "the weights are not finite any more: lower retriever.learning_rate".to_owned();
            return Err(Error::Nothing { stage: Stage::TrainRetriever, what });
        }
        let mut hits = 0.0;
        for users in self.users.chunks(USERS) {
            cx.check()?;
            let ranks = if self.settings.validation_excludes_history {
                let users: Vec<&User> = users.iter().collect();
                retrieve(&self.model, self.known, &users, Split::Validation, 1)?.ranks
            } else {
                self.ranks_of_everything(users)?
            };
            hits += ranks.iter().map(|r| Metric::Recall.of(Some(*r), VALIDATION_K)).sum::<f64>();
        }
        Ok(Some(hits / self.users.len() as f64))
    }

    fn keep(&mut self, _: &Context) -> Result<()> {
        self.best = self.model.clone();
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let model = self.model.save()?;
        let files = [
            ("model.safetensors", model.weights),
            ("config.json", model.config),
            ("best.safetensors", self.best.save()?.weights),
            ("optimizer.safetensors", self.optimizer.save()?),
        ];
        Ok(files.map(|(name, bytes)| (name.to_owned(), bytes)).into())
    }

    fn restore(&mut self, cx: &Context, from: &Checkpoint<Course>) -> Result<()> {
        let items = self.model.config().items;
        let config = from.file(cx, "config.json")?;
        let model = LruRec::load(&from.file(cx, "model.safetensors")?, &config, items)?.on(self.device)?;
        let best = LruRec::load(&from.file(cx, "best.safetensors")?, &config, items)?.on(self.device)?;
        let optimizer = from.file(cx, "optimizer.safetensors")?;
        self.optimizer = AdamW::load(self.optimizer.config().clone(), &optimizer, model.params())?;
        (self.model, self.best) = (model, best);
        Ok(())
    }
}
