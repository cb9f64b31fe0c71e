//! NF4 weights beside bitsandbytes: decoding, and products with the decoded weight.

mod ours;
mod report;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::contest::Contestant;
use crate::figures;
use crate::machine::Machine;
pub(crate) use ours::contestant;
use report::{Report, Row};

/// Shapes of a weight, `[d_out, d_in]`: those of Llama-2-7B.
const SHAPES: [[usize; 2]; 2] = [[4096, 4096], [11008, 4096]];
/// Rows of `x`.
const ROWS: [usize; 4] = [1, 16, 128, 512];
/// A turn takes about as long as this, in milliseconds, and at least [`LEAST`] repetitions.
const TURN_MS: f64 = 300.0;
const LEAST: usize = 2;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with torch and bitsandbytes.
    #[arg(long)]
    python: PathBuf,
    /// The folder of this project: its twins.
    #[arg(long)]
    project: PathBuf,
    /// Turns of every contestant.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Numbers of threads, each with turns of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// One JSON object with every figure; the tables go to standard error.
    #[arg(long)]
    json: bool,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Path {
    /// The whole weight is decoded.
    Dequantize,
    /// The weight is decoded and multiplied with; theirs decodes it whole.
    Product,
    /// Their kernel for evaluation, which repacks the weight before; ours is the one of `Product`.
    Fused,
}

/// The floats of `x` and of the decoded weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Float {
    F32,
    Bf16,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Case {
    path: Path,
    dtype: Float,
    d_out: usize,
    d_in: usize,
    rows: usize,
    threads: usize,
}

/// A measurement and how often it is repeated.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    #[serde(flatten)]
    case: Case,
    repeats: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    milliseconds: Vec<f64>,
}

/// Measures every case and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::here(&options.python, &["torch", "bitsandbytes"])?;
    let ours = std::env::current_exe().context("cannot find this program")?;
    let mut ours = Contestant::start("mllm4rec", Command::new(ours).arg("nf4-contestant"))?;
    let twin = options.project.join("bench/twins/nf4.py");
    let mut theirs = Contestant::start("bitsandbytes", Command::new(&options.python).arg(twin))?;
    let mut rows = Vec::new();
    for case in cases(&options.threads) {
        eprintln!("{case:?}");
        rows.push(measure(case, options.rounds, &mut ours, &mut theirs)?);
    }
    let report = Report { machine, rounds: options.rounds, rows };
    figures::print(&report, options.json)
}

fn cases(threads: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &threads in threads {
        for [d_out, d_in] in SHAPES {
            let case = |path, dtype, rows| Case { path, dtype, d_out, d_in, rows, threads };
            cases.extend([Float::F32, Float::Bf16].map(|dtype| case(Path::Dequantize, dtype, 0)));
            for (path, dtype) in [(Path::Product, Float::F32), (Path::Product, Float::Bf16), (Path::Fused, Float::Bf16)]
            {
                cases.extend(ROWS.map(|rows| case(path, dtype, rows)));
            }
        }
    }
    cases
}

/// Both in turn; the first turn finds out how many repetitions fill one, and is not counted.
fn measure(case: Case, rounds: usize, ours: &mut Contestant, theirs: &mut Contestant) -> Result<Row> {
    let mut repeats = [LEAST; 2];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (side, contestant) in [&mut *ours, &mut *theirs].into_iter().enumerate() {
            let answer: Answer = contestant.ask(&Order { case, repeats: repeats[side] })?;
            if round == 0 {
                let fastest = answer.milliseconds.iter().copied().fold(f64::INFINITY, f64::min);
                repeats[side] = ((TURN_MS / fastest) as usize).clamp(LEAST, 200);
            } else {
                times[side].push(answer.milliseconds);
            }
        }
    }
    let [ours, theirs] = times;
    Ok(Row::new(case, &ours, &theirs))
}
