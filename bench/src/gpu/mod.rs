//! Kernels on a card beside PyTorch and bitsandbytes: times in turn, as ratios and as shares of what the card can do.
//!
//! Both sides are timed alike: after a warm-up, the wall time of many repetitions with one wait for the device at their end,
//! so that neither pays for its launches more than in real work. Inputs are random normals. What is bound by bytes goes
//! through several copies of a weight, more than a cache holds.
//!
//! On the emulator there are no times; it shows that every case runs and computes what it should.

mod card;
mod case;
mod noise;
mod ours;
mod outcome;
mod prompts;
mod report;
mod rounds;
mod row;
mod side;
mod sustained;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use case::{Case, Group, LAYERS};
pub(crate) use ours::contestant;
use report::Report;
use rounds::Rounds;
use row::Row;
use side::{Order, Side};

/// What to measure, and with whom.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with torch and, as far as they are to be compared with, bitsandbytes, transformers and PEFT.
    #[arg(long)]
    python: Option<PathBuf>,
    /// The folder of this project: its twins.
    #[arg(long)]
    project: PathBuf,
    /// Where ours runs; on the emulator the peers run on the CPU, and nothing is timed.
    #[arg(long, value_enum, default_value_t = Place::Cuda)]
    device: Place,
    /// Small shapes, for a try.
    #[arg(long)]
    tiny: bool,
    /// Turns of every contestant.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of a turn.
    #[arg(long, default_value_t = 300.0)]
    turn_ms: f64,
    /// Seconds of the product without a pause.
    #[arg(long, default_value_t = 60.0)]
    sustained_s: f64,
    /// Layers of the large ranker.
    #[arg(long, default_value_t = LAYERS)]
    layers: usize,
    /// Some of the groups. The ceilings are always measured; the product without a pause only if they are named, or none is.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Where every figure goes, written anew after every case.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the tables go, likewise; else they are printed.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Where ours runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// The first card.
    Cuda,
    /// The emulator.
    Emulated,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Emulated => "emulated",
        }
    }
}

/// Measures every case and writes the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut ours = Side::ours(options.device)?;
    let mut theirs = Side::theirs(options);
    let about = ours.ask(&Order::About);
    if let Some(why) = about.failed {
        bail!("there is nothing to measure: {why}");
    }
    let mut report = Report::new(options, about, theirs.as_mut().map(|theirs| theirs.ask(&Order::About)));
    write(options, &report)?;
    let rounds = Rounds { rounds: options.rounds, turn_ms: options.turn_ms, timed: options.device == Place::Cuda };
    let mut group = Group::Ceilings;
    for case in cases(options) {
        if case.group() != group {
            // Memory that one side keeps for later is none for the other.
            ours.stop();
            group = case.group();
        }
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let case = with_files(case, scratch.path())?;
        eprintln!("{}", case.label().join(", "));
        let (measured, card) = rounds.measure(&case, &mut ours, theirs.as_mut());
        let row = Row::new(&case, measured, card);
        eprintln!("  {row}");
        report.add(row);
        write(options, &report)?;
    }
    report.finish();
    write(options, &report)?;
    if options.markdown.is_none() {
        print!("{report}");
    }
    eprintln!("{}", report.outcome());
    if report.failures() > 0 {
        bail!("{} of the cases failed", report.failures());
    }
    Ok(())
}

fn cases(options: &Options) -> Vec<Case> {
    let Options { tiny, sustained_s, layers, only, .. } = options;
    let all = if *tiny { case::tiny(*sustained_s) } else { case::real(*sustained_s, *layers) };
    let named = |group| only.is_empty() || only.contains(&group);
    let wanted = |case: &Case| matches!(case, Case::Copy { .. } | Case::Product { .. }) || named(case.group());
    all.into_iter().filter(wanted).collect()
}

/// A case with the files that both sides read, where it has some.
fn with_files(mut case: Case, scratch: &Path) -> Result<Case> {
    match &mut case {
        Case::RetrieverStep { items, max_length, batch, folder } => {
            crate::retriever::Problem::synthetic(*items, *max_length, *batch).write(scratch)?;
            *folder = scratch.display().to_string();
        }
        Case::RankerStep(reading) | Case::RankerScores(reading) => {
            prompts::Problem::new(reading).write(scratch)?;
            reading.folder = scratch.display().to_string();
        }
        _ => {}
    }
    Ok(case)
}

/// Writes what there is so far: whoever ends this program early has that.
fn write(options: &Options, report: &Report) -> Result<()> {
    let put = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &options.json {
        put(path, serde_json::to_string_pretty(report)?)?;
    }
    options.markdown.as_deref().map_or(Ok(()), |path| put(path, report.to_string()))
}
