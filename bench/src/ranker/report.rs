//! The figures of the ranker's bench, as a table and as JSON.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Answer;
use super::problem::Problem;
use crate::figures::{Ratio, Spread};
use crate::machine::Machine;

/// Losses and scores that are further apart than this are not of the same network.
const TOLERANCE: f64 = 1e-3;

/// What one contestant has done.
pub(super) struct Entry {
    name: &'static str,
    /// Milliseconds by round.
    steps: Vec<Vec<f64>>,
    scoring: Vec<Vec<f64>>,
    losses: Vec<f64>,
    /// Those of the first round: training goes on between rounds.
    scores: Vec<Vec<f64>>,
    /// The most memory of the process while it trained, and while it scored.
    bytes: [u64; 2],
}

impl Entry {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, steps: Vec::new(), scoring: Vec::new(), losses: Vec::new(), scores: Vec::new(), bytes: [0; 2] }
    }

    pub(super) fn trained(&mut self, answer: Answer) {
        self.steps.push(answer.milliseconds);
        self.losses.extend(answer.losses);
        self.bytes[0] = self.bytes[0].max(answer.bytes);
    }

    pub(super) fn scored(&mut self, answer: Answer) {
        self.scoring.push(answer.milliseconds);
        self.bytes[1] = self.bytes[1].max(answer.bytes);
        if self.scores.is_empty() {
            self.scores = answer.scores;
        }
    }
}

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: usize,
    threads: usize,
    examples: usize,
    example_tokens: usize,
    prompts: usize,
    prompt_tokens: usize,
    /// The largest difference of our losses and scores to a peer's.
    loss_difference: f64,
    score_difference: f64,
    rows: Vec<Row>,
}

/// One line of the table. Ratios say how many times more a contestant takes than ours.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    step_ms: Spread,
    tokens_per_s: f64,
    step_ratio: Ratio,
    train_mib: f64,
    prompts_per_s: f64,
    score_ratio: Ratio,
    score_mib: f64,
    /// Memory beside ours, while training and while scoring.
    memory_ratios: [f64; 2],
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        rounds: usize,
        threads: usize,
        problem: &Problem,
        entries: &[Entry],
    ) -> Result<Self> {
        let ours = &entries[0];
        let row = |entry: &Entry| {
            let (step_ms, scoring) = (Spread::of(entry.steps.concat()), Spread::of(entry.scoring.concat()));
            let mib = entry.bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
            Row {
                name: entry.name,
                step_ms,
                tokens_per_s: problem.example_tokens() as f64 / step_ms.median * 1e3,
                step_ratio: Ratio::of(&entry.steps, &ours.steps),
                train_mib: mib[0],
                prompts_per_s: problem.prompts.len() as f64 / scoring.median * 1e3,
                score_ratio: Ratio::of(&entry.scoring, &ours.scoring),
                score_mib: mib[1],
                memory_ratios: [0, 1].map(|i| entry.bytes[i] as f64 / ours.bytes[i] as f64),
            }
        };
        let loss = |peer: &Entry| most(peer.losses.iter().zip(&ours.losses));
        let score = |peer: &Entry| most(peer.scores.iter().flatten().zip(ours.scores.iter().flatten()));
        let report = Self {
            machine,
            rounds,
            threads,
            examples: problem.examples.len(),
            example_tokens: problem.example_tokens(),
            prompts: problem.prompts.len(),
            prompt_tokens: problem.prompt_tokens(),
            loss_difference: entries[1..].iter().map(loss).fold(0.0, f64::max),
            score_difference: entries[1..].iter().map(score).fold(0.0, f64::max),
            rows: entries.iter().map(row).collect(),
        };
        if report.loss_difference > TOLERANCE || report.score_difference > TOLERANCE {
            let apart = format!("{:.1e} and {:.1e}", report.loss_difference, report.score_difference);
            bail!("the contestants do not compute the same: losses and scores are up to {apart} apart");
        }
        Ok(report)
    }
}

fn most<'a>(pairs: impl Iterator<Item = (&'a f64, &'a f64)>) -> f64 {
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "a step: {} examples, {} tokens; scoring: {} prompts, {} tokens; {} threads, f32, {} rounds in turn; medians, ratios \
             with the least and most of the rounds. Losses at most {:.0e} apart, scores {:.0e}\n",
            self.examples,
            self.example_tokens,
            self.prompts,
            self.prompt_tokens,
            self.threads,
            self.rounds,
            self.loss_difference,
            self.score_difference
        )?;
        writeln!(
            f,
            "| contestant | training, tokens/s | × ours | peak MiB | × ours | scoring, prompts/s | × ours | peak MiB | × ours \
             |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [train, score] = self.memory_ratios;
        write!(
            f,
            "| {} | {:.0} | {} | {:.0} | {train:.1}× | {:.1} | {} | {:.0} | {score:.1}× |",
            self.name,
            self.tokens_per_s,
            self.step_ratio,
            self.train_mib,
            self.prompts_per_s,
            self.score_ratio,
            self.score_mib
        )
    }
}
