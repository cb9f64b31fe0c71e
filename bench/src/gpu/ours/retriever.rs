//! Training steps of LRURec.

use std::path::Path;

use anyhow::Result;
use kernels::Device;
use model::params::AdamW;
use model::retriever::{Dropout, LruRec, PackedBatch, optimizer_config};

use super::Ready;
use crate::retriever::Problem;

/// A model, its optimiser and batches that are there already.
pub(super) struct Step {
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
        Ok(Self {
            model: host.on(device)?,
            host,
            optimizer: AdamW::new(optimizer_config(problem.learning_rate, problem.weight_decay)),
            batches: (0..problem.batches.len()).map(|step| problem.batch(step)).collect(),
            dropout: Dropout { seed: problem.seed, rate: problem.dropout },
        })
    }
}

impl Ready for Step {
    fn run(&mut self, turn: usize) -> Result<()> {
        let batch = &self.batches[turn % self.batches.len()];
        self.model.train_step(batch, &mut self.optimizer, self.dropout)?;
        Ok(())
    }

    /// How far the loss is from that of the host, both before the first step.
    fn error(&mut self) -> Result<Option<f64>> {
        let nothing = Dropout { rate: 0.0, ..self.dropout };
        let rows = self.batches[0].rows();
        let [found, wanted] = [&self.model, &self.host].map(|model| {
            let (loss, _) = model.loss_and_gradients(&self.batches[0], rows, nothing)?;
            Ok::<f64, anyhow::Error>(loss)
        });
        let (found, wanted) = (found?, wanted?);
        Ok(Some((found - wanted).abs() / wanted.abs()))
    }
}
