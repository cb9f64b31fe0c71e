//! What all contestants work on: the same batches, users and initial weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use data::dataset::training_items;
use data::examples::{Permutation, Rng};
use model::retriever::{LruRec, LruRecConfig, PackedBatch, example_key, optimizer_config, windows};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;

/// What the files of a problem are called.
const FILES: [&str; 2] = ["problem.json", "weights.safetensors"];
/// Batches of a problem that is made up: as many as it takes for none to be remembered.
const MADE_UP_BATCHES: usize = 16;
/// Of how many items a window of such a problem is made: at least so many, and on the mean so many more. Amazon Beauty has
/// 5.55 labels in a window.
const MADE_UP_WINDOW: [f64; 2] = [3.0, 3.05];

/// Batches, users and settings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(super) name: String,
    pub(super) items: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) max_length: usize,
    pub(super) batch_size: usize,
    pub(crate) dropout: f32,
    pub(crate) learning_rate: f32,
    pub(crate) weight_decay: f32,
    pub(super) eps: f32,
    pub(super) max_grad_norm: f64,
    pub(crate) seed: u64,
    /// Training windows of all users.
    pub(super) windows: usize,
    /// Windows, step by step, in the order in which the product trains.
    pub(crate) batches: Vec<Vec<Vec<u32>>>,
    /// What every user has seen before its test item.
    pub(super) histories: Vec<Vec<u32>>,
}

impl Problem {
    /// The first `steps` batches of a data set.
    pub(super) fn new(dataset: &Dataset, name: &str, steps: usize) -> Result<Self> {
        let settings = &dataset.settings;
        let length = settings.max_length as usize;
        let all: Vec<&[u32]> = dataset
            .users
            .iter()
            .map(|items| training_items(items))
            .flat_map(|items| windows(items.len(), length).into_iter().map(move |w| &items[w]))
            .collect();
        let size = settings.batch_size as usize;
        let mut batches = Vec::new();
        for epoch in 0.. {
            let order = Permutation::new(all.len() as u64, dataset.seed, epoch);
            let shuffled: Vec<Vec<u32>> = (0..order.len()).map(|i| all[order.at(i) as usize].to_vec()).collect();
            batches.extend(shuffled.chunks_exact(size).map(<[_]>::to_vec));
            if batches.len() >= steps {
                break;
            }
        }
        batches.truncate(steps);
        let optimizer = optimizer_config(settings.learning_rate as f32, settings.weight_decay as f32);
        Ok(Self {
            name: name.to_owned(),
            items: dataset.items,
            hidden: settings.hidden as usize,
            layers: settings.layers as usize,
            max_length: length,
            batch_size: size,
            dropout: settings.dropout as f32,
            learning_rate: optimizer.learning_rate,
            weight_decay: optimizer.weight_decay,
            eps: optimizer.eps,
            max_grad_norm: optimizer.max_grad_norm.unwrap_or(f64::INFINITY),
            seed: dataset.seed,
            windows: all.len(),
            batches,
            histories: dataset.users.iter().map(|items| items[..items.len() - 1].to_vec()).collect(),
        })
    }

    /// A problem that is made up, with the reference's settings: windows about as long as Amazon Beauty's, random items.
    pub(crate) fn synthetic(items: usize, max_length: usize, batch_size: usize) -> Self {
        let window = |rng: &mut Rng| -> Vec<u32> {
            let [least, more] = MADE_UP_WINDOW;
            let length = (least - more * (1.0 - rng.unit()).ln()) as usize;
            (0..length.min(max_length + 1)).map(|_| rng.below(items as u64) as u32 + 1).collect()
        };
        let mut rng = Rng::keyed(&[items as u64]);
        let batches: Vec<Vec<Vec<u32>>> =
            (0..MADE_UP_BATCHES).map(|_| (0..batch_size).map(|_| window(&mut rng)).collect()).collect();
        let optimizer = optimizer_config(1e-3, 0.01);
        Self {
            name: "made up".to_owned(),
            items,
            hidden: 64,
            layers: 2,
            max_length,
            batch_size,
            dropout: 0.2,
            learning_rate: optimizer.learning_rate,
            weight_decay: optimizer.weight_decay,
            eps: optimizer.eps,
            max_grad_norm: optimizer.max_grad_norm.unwrap_or(f64::INFINITY),
            seed: 42,
            windows: MADE_UP_BATCHES * batch_size,
            batches,
            histories: Vec::new(),
        }
    }

    /// The files that [`Problem::write`] made: the problem, and a model with the initial weights.
    pub(crate) fn read(folder: &Path) -> Result<(Self, LruRec)> {
        let [problem, weights] = FILES.map(|name| folder.join(name));
        let problem: Self = serde_json::from_slice(&std::fs::read(problem)?)?;
        let model = LruRec::load(&std::fs::read(weights)?, &problem.config()?.to_json(), problem.items)?;
        Ok((problem, model))
    }

    /// One of the batches, keyed as the product keys it.
    pub(crate) fn batch(&self, step: usize) -> PackedBatch {
        let keyed = self.batches[step].iter().zip(0..).map(|(w, i)| (w.as_slice(), example_key(step as u64, i)));
        PackedBatch::train(keyed, self.max_length)
    }

    /// The shape of the model.
    pub(super) fn config(&self) -> Result<LruRecConfig> {
        Ok(LruRecConfig::new(self.items, self.hidden, self.layers, self.dropout, self.max_length)?)
    }

    /// Writes problem and initial weights.
    pub(crate) fn write(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        let [problem, weights] = FILES.map(|name| folder.join(name));
        std::fs::write(&problem, serde_json::to_vec(self)?)?;
        std::fs::write(&weights, LruRec::new(self.config()?, self.seed)?.save()?.weights)?;
        Ok([problem, weights])
    }

    /// Labels of all batches together.
    pub(super) fn labels(&self) -> usize {
        self.batches.iter().flatten().map(|window| window.len().min(self.max_length)).sum()
    }
}
