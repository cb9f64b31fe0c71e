//! LRURec beside PyTorch twins: what a training step takes, in time and memory, and the top-20 of all users.

mod dataset;
mod ours;
mod problem;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::contest::Contestant;
use crate::figures;
use crate::machine::Machine;
pub(crate) use ours::contestant;
pub(crate) use problem::Problem;
use report::{Golden, Measured, Report, Shape};

/// Candidates of a user.
const K: usize = 20;
/// Steps of the loss curves that are laid on each other.
const CURVE: usize = 200;

/// What to measure, and where the data lie.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder with `amazon-beauty/user_sequence.txt` and `ml-latest-small/ratings.csv`.
    #[arg(long)]
    data: PathBuf,
    /// A Python with torch, safetensors and numpy.
    #[arg(long)]
    python: PathBuf,
    /// The folder of this project: its configs, twins and fixtures.
    #[arg(long)]
    project: PathBuf,
    /// Turns of every contestant.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Numbers of threads, each with turns of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// One of `beauty` and `movielens`; both if absent.
    #[arg(long)]
    only: Option<String>,
    /// One JSON object with every figure; the tables go to standard error.
    #[arg(long)]
    json: bool,
}

/// What a contestant is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Task {
    /// Compare yourself with the golden file.
    Golden { folder: PathBuf, name: String },
    /// Train from the start without dropout; say the losses.
    Curve { steps: usize },
    /// Train on; say the time of every step, and the most memory meanwhile.
    Train { first: usize, steps: usize },
    /// The best `k` items of some users.
    Top { first: usize, users: usize, k: usize },
}

/// A task and the threads to do it on.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    #[serde(flatten)]
    task: Task,
    threads: usize,
}

/// Whatever a task asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    milliseconds: Vec<f64>,
    losses: Vec<f64>,
    ids: Vec<Vec<u32>>,
    bytes: u64,
}

/// A contestant and how much it does in one turn.
struct Entry {
    contestant: Contestant,
    /// The layout that the twin is started with; `None` for ours.
    layout: Option<&'static str>,
    steps: usize,
    users: usize,
}

/// Measures every shape and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::here(&options.python, &["torch", "numpy"])?;
    let mut shapes = Vec::new();
    for name in ["beauty", "movielens"] {
        if options.only.as_deref().is_none_or(|only| only == name) {
            shapes.push(measure(options, name).with_context(|| format!("the bench on {name}"))?);
        }
    }
    let report = Report { machine, rounds: options.rounds, shapes };
    figures::print(&report, options.json)
}

fn measure(options: &Options, name: &'static str) -> Result<Shape> {
    eprintln!("{name}: preparing the data");
    let problem = Problem::new(&dataset::read(options, name)?, name, CURVE)?;
    let folder = tempfile::tempdir()?;
    let [problem_file, weights_file] = problem.write(folder.path())?;
    let mut entries = start(options, &problem_file, &weights_file)?;
    let golden = golden(options, &mut entries)?;
    eprintln!("{name}: loss curves of {CURVE} steps");
    let curves = entries.iter_mut().filter(|e| e.layout != Some("all")).map(|e| curve(e, options));
    let curves: Vec<Vec<f64>> = curves.collect::<Result<_>>()?;
    let measured = rounds(options, &problem, &mut entries, name)?;
    Shape::new(&problem, golden, &curves, &measured)
}

fn start(options: &Options, problem: &Path, weights: &Path) -> Result<Vec<Entry>> {
    let twin = options.project.join("bench/twins/lrurec.py");
    let ours = std::env::current_exe().context("cannot find this program")?;
    let mut ours = Command::new(ours);
    ours.arg("retriever-contestant").args([problem, weights]);
    let contestant = Contestant::start("mllm4rec", &mut ours)?;
    let mut entries = vec![Entry { contestant, layout: None, steps: 20, users: usize::MAX }];
    let twins =
        [("all positions", "all", 3, 128), ("labels only", "labelled", 5, 1024), ("no padding", "packed", 10, 4096)];
    for (name, layout, steps, users) in twins {
        let mut command = Command::new(&options.python);
        command.arg(&twin).arg(layout).args([problem, weights]);
        let contestant = Contestant::start(name, &mut command)?;
        entries.push(Entry { contestant, layout: Some(layout), steps, users });
    }
    Ok(entries)
}

/// How far every twin is from the golden file of the parity tests, which ours is tested against.
fn golden(options: &Options, entries: &mut [Entry]) -> Result<Golden> {
    let folder = options.project.join("integration-tests/fixtures/lrurec");
    let mut worst = Golden::default();
    for entry in entries.iter_mut().filter(|e| e.layout.is_some()) {
        for name in ["lrurec", "lrurec_clip"] {
            let task = Task::Golden { folder: folder.clone(), name: name.to_owned() };
            let found: Golden = entry.contestant.ask(&Order { task, threads: 1 })?;
            worst = worst.max(&found);
        }
    }
    worst.check()
}

fn curve(entry: &mut Entry, options: &Options) -> Result<Vec<f64>> {
    let threads = options.threads.iter().copied().max().unwrap_or(1);
    let answer: Answer = entry.contestant.ask(&Order { task: Task::Curve { steps: CURVE }, threads })?;
    Ok(answer.losses)
}

/// Everybody in turn, round after round; the first turn warms up and is not counted.
fn rounds(options: &Options, problem: &Problem, entries: &mut [Entry], name: &str) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = Vec::new();
    for round in 0..=options.rounds {
        eprintln!("{name}: round {round} of {}", options.rounds);
        for (e, entry) in entries.iter_mut().enumerate() {
            for (t, &threads) in options.threads.iter().enumerate() {
                let first = round * 20 % (problem.batches.len() - entry.steps);
                let task = Task::Train { first, steps: entry.steps };
                let train: Answer = entry.contestant.ask(&Order { task, threads })?;
                let users = entry.users.min(problem.histories.len());
                let task = Task::Top { first: 0, users, k: K };
                let top: Answer = entry.contestant.ask(&Order { task, threads })?;
                if round == 0 {
                    measured.push(Measured::new(entry.contestant.name, threads, users, top.ids));
                    continue;
                }
                measured[e * options.threads.len() + t].add(train, top);
            }
        }
    }
    Ok(measured)
}
