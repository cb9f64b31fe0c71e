//! Our side of the bench, as a contestant.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use kernels::Device;
use model::params::AdamW;
use model::retriever::{Dropout, LruRec, PackedBatch, optimizer_config};

use super::problem::Problem;
use super::{Answer, Order, Task};
use crate::contest::serve;
use crate::machine::{forget_peak, peak_bytes};

/// Users that are scored at a time, as the product does it.
const USERS: usize = 256;

/// Answers commands until standard input ends.
pub(crate) fn contestant(problem: &Path, weights: &Path) -> Result<()> {
    let problem: Problem = serde_json::from_slice(&std::fs::read(problem)?)?;
    let fresh = LruRec::load(&std::fs::read(weights)?, &problem.config()?.to_json(), problem.items)?;
    let mut ours = Ours { training: Training::new(&problem, &fresh), problem: &problem, fresh: &fresh };
    let mut devices: Vec<Device> = Vec::new();
    serve(move |order: Order| {
        if !devices.iter().any(|d| d.threads() == order.threads) {
            devices.push(Device::cpu(order.threads)?);
        }
        let device = devices.iter().find(|d| d.threads() == order.threads);
        match device {
            Some(device) => device.run(|| ours.answer(&order.task)),
            None => bail!("there is no device with {} threads", order.threads),
        }
    })
}

struct Ours<'a> {
    problem: &'a Problem,
    fresh: &'a LruRec,
    training: Training,
}

/// A model and its optimiser.
struct Training {
    model: LruRec,
    optimizer: AdamW,
}

impl Training {
    fn new(problem: &Problem, fresh: &LruRec) -> Self {
        let optimizer = AdamW::new(optimizer_config(problem.learning_rate, problem.weight_decay));
        Self { model: fresh.clone(), optimizer }
    }

    fn step(&mut self, problem: &Problem, step: usize, rate: f32) -> Result<f64> {
        let dropout = Dropout { seed: problem.seed, rate };
        Ok(self.model.train_step(&problem.batch(step), &mut self.optimizer, dropout)?.loss)
    }
}

impl Ours<'_> {
    fn answer(&mut self, task: &Task) -> Result<Answer> {
        match *task {
            Task::Golden { .. } => bail!("the parity tests compare this side with the golden file"),
            Task::Curve { steps } => self.curve(steps),
            Task::Train { first, steps } => self.train(first, steps),
            Task::Top { first, users, k } => self.top(first, users, k),
        }
    }

    fn curve(&self, steps: usize) -> Result<Answer> {
        let mut training = Training::new(self.problem, self.fresh);
        let losses = (0..steps).map(|step| training.step(self.problem, step, 0.0)).collect::<Result<_>>()?;
        Ok(Answer { losses, ..Answer::default() })
    }

    fn train(&mut self, first: usize, steps: usize) -> Result<Answer> {
        forget_peak();
        let mut milliseconds = Vec::with_capacity(steps);
        for step in first..first + steps {
            let started = Instant::now();
            self.training.step(self.problem, step, self.problem.dropout)?;
            milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Answer { milliseconds, bytes: peak_bytes(), ..Answer::default() })
    }

    /// The weights are the initial ones, as the twins' are: what they are does not change the work.
    fn top(&self, first: usize, users: usize, k: usize) -> Result<Answer> {
        let histories = &self.problem.histories[first..first + users];
        let started = Instant::now();
        let mut ids = Vec::with_capacity(users);
        for histories in histories.chunks(USERS) {
            let batch = PackedBatch::score(histories.iter().map(Vec::as_slice), self.problem.max_length);
            let hidden = self.fresh.encode(&batch)?;
            let seen: Vec<Vec<u32>> = histories.iter().map(|h| self.seen(h)).collect();
            let exclude: Vec<&[u32]> = seen.iter().map(Vec::as_slice).collect();
            let best = self.fresh.top_k(&hidden, &exclude, k)?;
            ids.extend(best.iter().map(|best| best.iter().map(|s| s.id).collect()));
        }
        let milliseconds = vec![started.elapsed().as_secs_f64() * 1e3];
        Ok(Answer { milliseconds, ids, ..Answer::default() })
    }

    /// What the twins mask: the last `max_length` items, as in the reference implementation.
    fn seen(&self, history: &[u32]) -> Vec<u32> {
        let mut seen = history[history.len().saturating_sub(self.problem.max_length)..].to_vec();
        seen.sort_unstable();
        seen
    }
}
