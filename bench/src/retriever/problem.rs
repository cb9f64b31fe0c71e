//! What all contestants work on: the same batches, users and initial weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use data::dataset::training_items;
use data::examples::Permutation;
use model::retriever::{LruRec, LruRecConfig, optimizer_config, windows};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;

/// Batches, users and settings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) name: String,
    pub(super) items: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) max_length: usize,
    pub(super) batch_size: usize,
    pub(super) dropout: f32,
    pub(super) learning_rate: f32,
    pub(super) weight_decay: f32,
    pub(super) eps: f32,
    pub(super) max_grad_norm: f64,
    pub(super) seed: u64,
    /// Training windows of all users.
    pub(super) windows: usize,
    /// Windows, step by step, in the order in which the product trains.
    pub(super) batches: Vec<Vec<Vec<u32>>>,
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

    /// The shape of the model.
    pub(super) fn config(&self) -> Result<LruRecConfig> {
        Ok(LruRecConfig::new(self.items, self.hidden, self.layers, self.dropout, self.max_length)?)
    }

    /// Writes problem and initial weights.
    pub(super) fn write(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        let [problem, weights] = ["problem.json", "weights.safetensors"].map(|name| folder.join(name));
        std::fs::write(&problem, serde_json::to_vec(self)?)?;
        std::fs::write(&weights, LruRec::new(self.config()?, self.seed)?.save()?.weights)?;
        Ok([problem, weights])
    }

    /// Labels of all batches together.
    pub(super) fn labels(&self) -> usize {
        self.batches.iter().flatten().map(|window| window.len().min(self.max_length)).sum()
    }
}
