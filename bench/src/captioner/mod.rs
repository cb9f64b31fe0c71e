//! The captioner beside transformers: the same weights, the same pictures.

mod ours;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::contest::Contestant;
use crate::figures;
use crate::machine::Machine;
pub(crate) use ours::contestant;
use report::{Report, Row};

/// The most tokens of a caption.
const MAX_TOKENS: usize = 20;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with torch and transformers.
    #[arg(long)]
    python: PathBuf,
    /// The folder of this project: its twins and its tiny captioner.
    #[arg(long)]
    project: PathBuf,
    /// Turns of every contestant.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Pictures that are described together.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// One JSON object with every figure; the tables go to standard error.
    #[arg(long)]
    json: bool,
}

/// The floats of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Float {
    F32,
    Bf16,
}

/// A command; the twin's script knows the same.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    Make { folder: PathBuf },
    Pictures { folder: PathBuf, count: usize, pixels: PathBuf },
    Caption { model: PathBuf, pixels: PathBuf, dtype: Float, threads: usize, max_tokens: usize, repeats: usize },
}

#[derive(Debug, Deserialize)]
struct Made {
    parameters: u64,
}

/// Nothing to say.
#[derive(Debug, Deserialize)]
struct Done {}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    milliseconds: Vec<f64>,
    tokens: Vec<Vec<u32>>,
}

/// Measures both checkpoints and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::here(&options.python, &["torch", "transformers"])?;
    let ours = std::env::current_exe().context("cannot find this program")?;
    let mut ours = Contestant::start("mllm4rec", Command::new(ours).arg("captioner-contestant"))?;
    let twin = options.project.join("bench/twins/captioner.py");
    let mut theirs = Contestant::start("transformers", Command::new(&options.python).arg(twin))?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let middle = scratch.path().join("middle");
    let made: Made = theirs.ask(&Order::Make { folder: middle.clone() })?;
    eprintln!("a checkpoint of {} million random weights", made.parameters / 1_000_000);
    let tiny = options.project.join("models/demo-captioner");
    let mut rows = Vec::new();
    for (name, model) in [("tiny", &tiny), ("middle", &middle)] {
        if !model.is_dir() {
            eprintln!("{name} is left out: there is no {}", model.display());
            continue;
        }
        let pixels = scratch.path().join(format!("{name}.safetensors"));
        let order = Order::Pictures { folder: model.clone(), count: options.batch, pixels: pixels.clone() };
        theirs.ask::<Done>(&order)?;
        for dtype in [Float::F32, Float::Bf16] {
            eprintln!("{name}, {dtype:?}");
            rows.push(measure(options, name, dtype, [model, &pixels], &mut ours, &mut theirs)?);
        }
    }
    figures::print(
        &Report { machine, rounds: options.rounds, batch: options.batch, threads: options.threads, rows },
        options.json,
    )
}

/// Both in turn.
fn measure(
    options: &Options,
    name: &'static str,
    dtype: Float,
    [model, pixels]: [&Path; 2],
    ours: &mut Contestant,
    theirs: &mut Contestant,
) -> Result<Row> {
    let mut times = [Vec::new(), Vec::new()];
    let mut tokens = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (side, contestant) in [&mut *ours, &mut *theirs].into_iter().enumerate() {
            let answer: Answer = contestant.ask(&Order::Caption {
                model: model.to_owned(),
                pixels: pixels.to_owned(),
                dtype,
                threads: options.threads,
                max_tokens: MAX_TOKENS,
                repeats: 1,
            })?;
            times[side].push(answer.milliseconds);
            tokens[side] = answer.tokens;
        }
    }
    Ok(Row::new(name, dtype, options.batch, &times, &tokens))
}
