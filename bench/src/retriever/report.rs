//! The figures of the retriever's bench, as tables and as JSON.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::Answer;
use super::problem::Problem;
use crate::figures::{Ratio, Spread};
use crate::machine::Machine;

/// A twin that is further than this from the golden file is no twin.
const TOLERANCE: f64 = 1e-4;
/// Loss curves that are further apart than this, relative, do not lie on each other.
const CURVE_TOLERANCE: f64 = 1e-3;

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    pub(super) shapes: Vec<Shape>,
}

/// The largest deviation of the twins from the golden file.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Golden {
    /// Of a loss, absolute.
    loss: f64,
    /// Of a gradient, relative to the largest of its tensor.
    gradient: f64,
}

impl Golden {
    pub(super) fn max(&self, other: &Self) -> Self {
        Self { loss: self.loss.max(other.loss), gradient: self.gradient.max(other.gradient) }
    }

    pub(super) fn check(self) -> Result<Self> {
        if self.loss > TOLERANCE || self.gradient > TOLERANCE {
            bail!("the twins do not compute the same: {self:?} away from the golden file");
        }
        Ok(self)
    }
}

/// One contestant on one number of threads.
pub(super) struct Measured {
    name: &'static str,
    threads: usize,
    /// While it trained.
    peak_bytes: u64,
    users: usize,
    ids: Vec<Vec<u32>>,
    /// Milliseconds of every step, by round.
    steps: Vec<Vec<f64>>,
    /// Milliseconds for all users, by round.
    top: Vec<Vec<f64>>,
}

impl Measured {
    pub(super) fn new(name: &'static str, threads: usize, users: usize, ids: Vec<Vec<u32>>) -> Self {
        Self { name, threads, peak_bytes: 0, users, ids, steps: Vec::new(), top: Vec::new() }
    }

    pub(super) fn add(&mut self, train: Answer, top: Answer) {
        self.peak_bytes = self.peak_bytes.max(train.bytes);
        self.steps.push(train.milliseconds);
        self.top.push(top.milliseconds.into_iter().map(|ms| ms / self.users as f64).collect());
    }

    fn row(&self, ours: &Self, steps_per_epoch: f64) -> Row {
        let step_ms = Spread::of(self.steps.concat());
        let same = self.ids.iter().zip(&ours.ids).filter(|(a, b)| a == b).count();
        Row {
            name: self.name,
            threads: self.threads,
            step_ms,
            epoch_s: step_ms.median * steps_per_epoch / 1e3,
            peak_mib: self.peak_bytes as f64 / f64::from(1 << 20),
            users_per_s: 1e3 / Spread::of(self.top.concat()).median,
            users: self.users,
            same_top: same as f64 / self.ids.len().min(ours.ids.len()) as f64,
            step_ratio: Ratio::of(&self.steps, &ours.steps),
            top_ratio: Ratio::of(&self.top, &ours.top),
            memory_ratio: self.peak_bytes as f64 / ours.peak_bytes as f64,
        }
    }
}

/// One line of a table. Ratios say how many times more a contestant takes than ours on as many threads.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    threads: usize,
    step_ms: Spread,
    /// Steps of an epoch times the median step.
    epoch_s: f64,
    peak_mib: f64,
    users_per_s: f64,
    /// Users that were scored in a turn.
    users: usize,
    /// Of the users that were scored, the share with the same twenty items in the same order as ours.
    same_top: f64,
    step_ratio: Ratio,
    top_ratio: Ratio,
    memory_ratio: f64,
}

/// The figures of one data set.
#[derive(Serialize)]
pub(super) struct Shape {
    name: String,
    items: usize,
    max_length: usize,
    batch_size: usize,
    labels_per_step: f64,
    users: usize,
    golden: Golden,
    /// The largest relative difference of our loss to a twin's, over the steps of the curves.
    curve_difference: f64,
    curve_steps: usize,
    /// What our second thread gives: the median step on the first number of threads over that on the last.
    thread_gain: f64,
    rows: Vec<Row>,
}

impl Shape {
    pub(super) fn new(problem: &Problem, golden: Golden, curves: &[Vec<f64>], measured: &[Measured]) -> Result<Self> {
        let curve_difference = curve_difference(curves);
        if curve_difference > CURVE_TOLERANCE {
            bail!("our losses are up to {curve_difference:.1e} away from a twin's (relative)");
        }
        let steps_per_epoch = problem.windows.div_ceil(problem.batch_size) as f64;
        let ours: Vec<&Measured> = measured.iter().filter(|m| m.name == measured[0].name).collect();
        let beside = |m: &Measured| ours.iter().find(|o| o.threads == m.threads).copied().unwrap_or(ours[0]);
        let rows: Vec<Row> = measured.iter().map(|m| m.row(beside(m), steps_per_epoch)).collect();
        let median = |m: &Measured| Spread::of(m.steps.concat()).median;
        Ok(Self {
            name: problem.name.clone(),
            items: problem.items,
            max_length: problem.max_length,
            batch_size: problem.batch_size,
            labels_per_step: problem.labels() as f64 / problem.batches.len() as f64,
            users: problem.histories.len(),
            golden,
            curve_difference,
            curve_steps: curves[0].len(),
            thread_gain: median(ours[0]) / median(ours[ours.len() - 1]),
            rows,
        })
    }
}

/// The first curve is ours.
fn curve_difference(curves: &[Vec<f64>]) -> f64 {
    let (ours, twins) = (&curves[0], &curves[1..]);
    let differences = twins.iter().flat_map(|twin| twin.iter().zip(ours).map(|(t, o)| (t - o).abs() / t));
    differences.fold(0.0, f64::max)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} rounds in turn; median [least and most of the rounds]\n", self.rounds)?;
        self.shapes.iter().try_for_each(|shape| writeln!(f, "{shape}"))
    }
}

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} items, length {}, batch {}, {:.0} labels a step, {} users",
            self.name, self.items, self.max_length, self.batch_size, self.labels_per_step, self.users
        )?;
        writeln!(
            f,
            "twins: {:.0e} (loss), {:.0e} (gradients) from the golden file; loss curves of {} steps without dropout at \
             most {:.0e} apart; our second thread: {:.2}×\n",
            self.golden.loss, self.golden.gradient, self.curve_steps, self.curve_difference, self.thread_gain
        )?;
        writeln!(
            f,
            "| contestant | threads | ms/step (quartiles) | × ours | s/epoch | peak MiB | × ours | top-20, users/s | × ours \
             | same lists |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        Ok(())
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let step = self.step_ms;
        write!(
            f,
            "| {} | {} | {:.1} ({:.1} {:.1}) | {} | {:.1} | {:.0} | {:.1}× | {:.0} (of {}) | {} | {:.1} % |",
            self.name,
            self.threads,
            step.median,
            step.low,
            step.high,
            self.step_ratio,
            self.epoch_s,
            self.peak_mib,
            self.memory_ratio,
            self.users_per_s,
            self.users,
            self.top_ratio,
            100.0 * self.same_top
        )
    }
}
