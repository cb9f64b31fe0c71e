//! What a retriever learns from, and is measured by: the same however it is trained.

use data::artifact::Digest;
use data::dataset::{Catalogue, Holdout, KnownItems, training_items};
use data::examples::{Permutation, deal};
use data::job::{self, Split, Stage};
use data::metrics::Metric;
use model::retriever::{Dropout, LruRec, LruRecConfig, PackedBatch, example_key, windows};

use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::population::User;
use crate::retrieval::{ITEM_IDS_FILE, USERS, item_ids, retrieve};
use crate::training::about;
use crate::{Error, Result};

/// The metric that early stopping looks at, Recall@10.
const VALIDATION_K: u32 = 10;

/// The population of a training.
pub(super) struct Lessons<'a> {
    pub(super) settings: &'a job::Retriever,
    seed: u64,
    catalogue: &'a Catalogue,
    known: &'a KnownItems,
    users: &'a [User],
    /// Training windows: the slices that batches are made of, numbered by their place here.
    windows: Vec<&'a [u32]>,
    /// The places of the users that they are of.
    owners: Vec<usize>,
}

impl<'a> Lessons<'a> {
    pub(super) fn new(
        seed: u64,
        settings: &'a job::Retriever,
        catalogue: &'a Catalogue,
        known: &'a KnownItems,
        users: &'a [User],
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
        Ok(Self { settings, seed, catalogue, known, users, windows, owners })
    }

    /// A retriever for these items that has not learnt anything.
    pub(super) fn fresh(&self) -> Result<LruRec> {
        let (s, items) = (self.settings, self.known.len());
        let (hidden, layers, length) = (s.hidden as usize, s.layers as usize, s.max_length as usize);
        let config = LruRecConfig::new(items, hidden, layers, s.dropout as f32, length)?;
        Ok(LruRec::new(config, self.seed)?)
    }

    pub(super) fn dropout(&self) -> Dropout {
        Dropout { seed: self.seed, rate: self.settings.dropout as f32 }
    }

    /// Whether the catalogue is so large that its items are shared out, and anybody may share.
    pub(super) fn are_shared(&self) -> bool {
        self.settings.slices > 1 && self.known.len() >= self.settings.share_items_from as usize
    }

    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.windows.len().div_ceil(self.settings.batch_size as usize) as u64
    }

    /// The slices of a step.
    pub(super) fn slices(&self, step: u64) -> Vec<PackedBatch> {
        let (epoch, examples) = self.examples(step);
        let window = |example: u64| (self.windows[example as usize], example_key(epoch, example));
        let windows: Vec<_> = examples.into_iter().map(window).collect();
        let lengths: Vec<usize> = windows.iter().map(|(window, _)| window.len()).collect();
        let pack = |slice: Vec<usize>| {
            let windows = slice.into_iter().map(|place| windows[place]);
            PackedBatch::train(windows, self.settings.max_length as usize)
        };
        deal(&lengths, self.settings.slices as usize).into_iter().map(pack).collect()
    }

    /// The windows of a step, by number, and its epoch.
    fn examples(&self, step: u64) -> (u64, Vec<u64>) {
        let (epoch, place) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let order = Permutation::new(self.windows.len() as u64, self.seed, epoch);
        let batch = u64::from(self.settings.batch_size);
        (epoch, (place * batch..((place + 1) * batch).min(order.len())).map(|i| order.at(i)).collect())
    }

    /// What a step learns from, in words.
    pub(super) fn about(&self, step: u64) -> String {
        let (_, examples) = self.examples(step);
        about(examples.iter().map(|example| self.users[self.owners[*example as usize]].id.as_str()))
    }

    /// The chunks of a validation.
    pub(super) fn chunks(&self) -> usize {
        self.users.len().div_ceil(USERS)
    }

    /// Hits among the first 10 of the validation items of a chunk of users.
    pub(super) fn validate(&self, cx: &Context, model: &LruRec, chunk: usize) -> Result<f64> {
        cx.check()?;
        if !model.params().is_finite() {
            let what = "the weights are not finite any more: lower retriever.learning_rate".to_owned();
            return Err(Error::Nothing { stage: Stage::TrainRetriever, what });
        }
        let users = &self.users[chunk * USERS..self.users.len().min((chunk + 1) * USERS)];
        let ranks = if self.settings.validation_excludes_history {
            let users: Vec<&User> = users.iter().collect();
            retrieve(model, self.known, &users, Split::Validation, 1)?.ranks
        } else {
            self.ranks_of_everything(model, users)?
        };
        Ok(ranks.iter().map(|r| Metric::Recall.of(Some(*r), VALIDATION_K)).sum())
    }

    /// Ranks as the reference validates: the history and the padding compete too.
    fn ranks_of_everything(&self, model: &LruRec, users: &[User]) -> Result<Vec<u32>> {
        let views: Vec<_> = users.iter().map(|u| Holdout::of(&u.items, Split::Validation)).collect();
        let batch = PackedBatch::score(views.iter().map(|v| v.history), self.settings.max_length as usize);
        let targets: Vec<u32> = views.iter().filter_map(|v| v.target.copied()).collect();
        Ok(model.validation_ranks(&model.encode(&batch)?, &targets)?)
    }

    /// Recall@10 over all users, from the hits of all chunks.
    pub(super) fn figure(&self, hits: &[f64]) -> f64 {
        hits.iter().sum::<f64>() / self.users.len() as f64
    }

    /// The digest of the windows: all else follows from the job.
    pub(super) fn digest(&self) -> Digest {
        let items = self.windows.iter().flat_map(|window| window.iter().chain([&0]));
        Digest::of_bytes(&items.flat_map(|item| item.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// What is committed at the end.
    pub(super) fn output(&self, best: &LruRec, course: &Course) -> Result<Output> {
        let (best, mut output) = (best.save()?, Output::default());
        output.file("model.safetensors", best.weights);
        output.file("config.json", best.config);
        output.file(ITEM_IDS_FILE, item_ids(self.catalogue));
        output.stats.rows = self.windows.len() as u64;
        course.describe("best_recall@10", &mut output.stats);
        Ok(output)
    }
}
