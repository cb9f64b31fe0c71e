//! Training steps of LRURec.

use std::path::Path;

use anyhow::Result;
use kernels::{Device, Recording};
use model::params::AdamW;
use model::retriever::{Dropout, LruRec, PackedBatch, optimizer_config};

use super::Ready;
use crate::retriever::Problem;

/// Steps that are compared: the first is recorded, the others are replayed.
const COMPARED: usize = 4;

/// A model, its optimiser and batches of one shape, so that a step is recorded once.
pub(super) struct Step {
    device: Device,
    recording: Recording,
    model: LruRec,
    host: LruRec,
    optimizer: AdamW,
    batches: Vec<PackedBatch>,
    dropout: Dropout,
}

impl Step {
    /// From the files that [`Problem::write`] made.
    pub(super) fn new(folder: &Path, device: &Device) -> Result<Self> {
        let (problem, host) = Problem::read(folder)?;
        let batches: Vec<PackedBatch> = (0..problem.batches.len()).map(|step| problem.batch(step)).collect();
        let most = |size: fn(&PackedBatch) -> usize| batches.iter().map(size).max().unwrap_or(0);
        let (rows, sequences) = (most(PackedBatch::rows), most(|batch| batch.segments.len()));
        Ok(Self {
            device: device.clone(),
            recording: Recording::default(),
            model: host.on(device)?,
            host,
            optimizer: AdamW::new(optimizer_config(problem.learning_rate, problem.weight_decay)),
            batches: batches.into_iter().map(|batch| batch.padded(rows, sequences)).collect(),
            dropout: Dropout { seed: problem.seed, rate: problem.dropout },
        })
    }
}

impl Step {
    /// The loss before the update.
    fn step(&mut self, turn: usize) -> Result<f64> {
        let Self { model, optimizer, batches, dropout, .. } = self;
        let batch = &batches[turn % batches.len()];
        let report = self.device.replayed(&mut self.recording, || model.train_step(batch, optimizer, *dropout))?;
        Ok(report.loss)
    }
}

impl Ready for Step {
    fn run(&mut self, turn: usize) -> Result<()> {
        self.step(turn).map(drop)
    }

    /// How far the losses of some steps are from those of the host.
    fn error(&mut self) -> Result<Option<f64>> {
        let (mut host, mut optimizer) = (self.host.clone(), AdamW::new(self.optimizer.config().clone()));
        let mut worst = 0.0f64;
        for turn in 0..COMPARED {
            let wanted = host.train_step(&self.batches[turn], &mut optimizer, self.dropout)?.loss;
            worst = worst.max((self.step(turn)? - wanted).abs() / wanted.abs());
        }
        Ok(Some(worst))
    }
}
