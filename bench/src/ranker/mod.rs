//! The ranker beside transformers and PEFT: the same weights, the same prompts, training steps and scores.

mod ours;
mod problem;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contest::Contestant;
use crate::figures;
use crate::machine::Machine;
pub(crate) use ours::contestant;
use problem::Problem;
use report::{Entry, Report};

/// The ways in which the peers use their stack; the twin's script tells them apart.
const PEERS: [&str; 2] = ["reference", "trimmed"];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with torch, transformers and PEFT.
    #[arg(long)]
    python: PathBuf,
    /// The folder of this project: its twins.
    #[arg(long)]
    project: PathBuf,
    /// Turns of every contestant.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// One JSON object with every figure; the tables go to standard error.
    #[arg(long)]
    json: bool,
}

/// A command; the twin's script knows the same.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    /// Write a checkpoint of random weights.
    Make { folder: PathBuf, config: Value },
    /// Load what the problem names.
    Prepare { problem: PathBuf, threads: usize },
    /// Optimiser steps on the examples.
    Train { repeats: usize },
    /// The scores of all prompts.
    Score { repeats: usize },
}

/// Whatever an order asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    parameters: u64,
    milliseconds: Vec<f64>,
    losses: Vec<f64>,
    scores: Vec<Vec<f64>>,
    bytes: u64,
}

/// Lets all contestants train and score in turn, and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::here(&options.python, &["torch", "transformers", "peft"])?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let problem = Problem::new(scratch.path());
    let mut contestants = start(options, &problem, scratch.path())?;
    let mut entries: Vec<Entry> = contestants.iter().map(|c| Entry::new(c.name)).collect();
    for round in 0..options.rounds {
        for (contestant, entry) in contestants.iter_mut().zip(&mut entries) {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, contestant.name);
            entry.trained(contestant.ask(&Order::Train { repeats: 1 })?);
            entry.scored(contestant.ask(&Order::Score { repeats: 1 })?);
        }
    }
    figures::print(&Report::new(machine, options.rounds, options.threads, &problem, &entries)?, options.json)
}

/// Ours and the peers, each with the network in its memory.
fn start(options: &Options, problem: &Problem, scratch: &Path) -> Result<Vec<Contestant>> {
    let twin = options.project.join("bench/twins/ranker.py");
    let ours = std::env::current_exe().context("cannot find this program")?;
    let mut contestants = vec![Contestant::start("mllm4rec", Command::new(ours).arg("ranker-contestant"))?];
    for way in PEERS {
        contestants.push(Contestant::start(way, Command::new(&options.python).arg(&twin).arg(way))?);
    }
    let order = Order::Make { folder: problem.model.clone(), config: Problem::config() };
    let made: Answer = contestants[1].ask(&order)?;
    eprintln!("a checkpoint of {} million random weights", made.parameters / 1_000_000);
    let file = problem.write(scratch)?;
    for contestant in &mut contestants {
        contestant.ask::<Answer>(&Order::Prepare { problem: file.clone(), threads: options.threads })?;
    }
    Ok(contestants)
}
