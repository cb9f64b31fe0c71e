//! train_retriever: LRURec on the training sequences, the best checkpoint on validation kept.

use data::artifact::Digest;
use data::dataset::{Catalogue, Holdout, KnownItems, training_items};
use data::examples::{Permutation, deal};
use data::job::{self, Split, Stage};
use data::metrics::Metric;
use kernels::collective::Bucket;
use kernels::{Device, Tensor};
use model::params::{AdamW, Params};
use model::retriever::{
    Dropout, LruRec, LruRecConfig, PackedBatch, Recordings, example_key, optimizer_config, windows,
};

use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::{Population, User};
use crate::retrieval::{ITEM_IDS_FILE, USERS, check_candidates, item_ids, retrieve};
use crate::snapshot::Snapshot;
use crate::training::{Rules, Trainee, about, train};
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
    let mut trainee = Retriever::new(cx.job.seed, &settings, &population.catalogue, &known, &users, device)?;
    let rules = Rules {
        stage: Stage::TrainRetriever,
        steps: trainee.steps_per_epoch() * u64::from(settings.max_epochs),
        validate_every: settings.validate_every,
        patience: settings.patience,
        metric: "R@10",
        learning_rate: ("retriever.learning_rate", settings.learning_rate),
    };
    train(cx, device, &rules, &mut trainee)
}

/// LRURec in training.
struct Retriever<'a> {
    settings: &'a job::Retriever,
    seed: u64,
    catalogue: &'a Catalogue,
    known: &'a KnownItems,
    users: &'a [User],
    /// Training windows: the slices that batches are made of, numbered by their place here.
    windows: Vec<&'a [u32]>,
    /// The places of the users that they are of.
    owners: Vec<usize>,
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
        catalogue: &'a Catalogue,
        known: &'a KnownItems,
        users: &'a [User],
        device: &'a Device,
    ) -> Result<Self> {
        let length = settings.max_length as usize;
        let of_user = |(place, user): (usize, &'a User)| {
            let items = training_items(&user.items);
            windows(items.len(), length).into_iter().map(move |window| (&items[window], place))
        };
        let (windows, owners): (Vec<&[u32]>, Vec<usize>) = users.iter().enumerate().flat_map(of_user).unzip();
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
            catalogue,
            known,
            users,
            windows,
            owners,
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

    /// The windows of a step, by number, and its epoch.
    fn examples(&self, step: u64) -> (u64, Vec<u64>) {
        let (epoch, place) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let order = Permutation::new(self.windows.len() as u64, self.seed, epoch);
        let batch = u64::from(self.settings.batch_size);
        (epoch, (place * batch..((place + 1) * batch).min(order.len())).map(|i| order.at(i)).collect())
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
        let (epoch, examples) = self.examples(step);
        let window = |example: u64| (self.windows[example as usize], example_key(epoch, example));
        let windows: Vec<_> = examples.into_iter().map(window).collect();
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

    fn chunks(&self) -> usize {
        self.users.len().div_ceil(USERS)
    }

    /// Hits among the first 10 of the validation items of a chunk of users.
    fn validate(&self, cx: &Context, chunk: usize) -> Result<f64> {
        cx.check()?;
        if !self.model.params().is_finite() {
            let what = "the weights are not finite any more: lower retriever.learning_rate".to_owned();
            return Err(Error::Nothing { stage: Stage::TrainRetriever, what });
        }
        let users = &self.users[chunk * USERS..self.users.len().min((chunk + 1) * USERS)];
        let ranks = if self.settings.validation_excludes_history {
            let users: Vec<&User> = users.iter().collect();
            retrieve(&self.model, self.known, &users, Split::Validation, 1)?.ranks
        } else {
            self.ranks_of_everything(users)?
        };
        Ok(ranks.iter().map(|r| Metric::Recall.of(Some(*r), VALIDATION_K)).sum())
    }

    /// Recall@10 over all users.
    fn figure(&self, sums: &[f64]) -> Option<f64> {
        Some(sums.iter().sum::<f64>() / self.users.len() as f64)
    }

    fn keep(&mut self) -> Result<()> {
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

    fn restore(&mut self, from: &Snapshot) -> Result<()> {
        let (items, config) = (self.model.config().items, from.file("config.json")?);
        let model = LruRec::load(from.file("model.safetensors")?, config, items)?.on(self.device)?;
        let best = LruRec::load(from.file("best.safetensors")?, config, items)?.on(self.device)?;
        let optimizer = from.file("optimizer.safetensors")?;
        self.optimizer = AdamW::load(self.optimizer.config().clone(), optimizer, model.params())?;
        (self.model, self.best) = (model, best);
        Ok(())
    }

    /// The windows: all else follows from the job.
    fn loaded(&self) -> Result<Digest> {
        let items = self.windows.iter().flat_map(|window| window.iter().chain([&0]));
        Ok(Digest::of_bytes(&items.flat_map(|item| item.to_le_bytes()).collect::<Vec<u8>>()))
    }

    fn about(&self, step: u64) -> String {
        let (_, examples) = self.examples(step);
        about(examples.iter().map(|example| self.users[self.owners[*example as usize]].id.as_str()))
    }

    fn output(&self, course: &Course) -> Result<Output> {
        let (best, mut output) = (self.best.save()?, Output::default());
        output.file("model.safetensors", best.weights);
        output.file("config.json", best.config);
        output.file(ITEM_IDS_FILE, item_ids(self.catalogue));
        output.stats.rows = self.windows.len() as u64;
        course.describe("best_recall@10", &mut output.stats);
        Ok(output)
    }
}
