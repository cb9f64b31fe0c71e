//! Benches beside peers: every figure is taken in turn with its peer's, in the same run, on the same threads.
//!
//! A contestant is a child process that answers commands; this program lets one after the other work, so that a change
//! of the machine's speed meets all of them. `cargo xtask bench` builds it and finds the Python that the peers need.

mod captioner;
mod contest;
mod figures;
mod gpu;
mod machine;
mod nf4;
mod ranker;
mod retriever;
mod scaling;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benches beside peers in the same run.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// LRURec against PyTorch twins: training steps, memory, top-20 of all users.
    Retriever(retriever::Options),
    /// NF4 weights against bitsandbytes: decoding and products.
    Nf4(nf4::Options),
    /// The captioner against transformers: images a second.
    Captioner(captioner::Options),
    /// The ranker against transformers and PEFT: training steps, scores, memory.
    Ranker(ranker::Options),
    /// The kernels of cards against PyTorch and bitsandbytes: times, ratios, shares of the card's ceilings.
    Gpu(gpu::Options),
    /// What more workers bring to a training: a model of the time of a step, beside a ring on this machine.
    Scaling(scaling::Options),
    /// A contestant of `retriever`; started by it.
    #[command(hide = true)]
    RetrieverContestant {
        /// The problem, made by `retriever`.
        problem: PathBuf,
        /// The initial weights.
        weights: PathBuf,
    },
    /// A contestant of `nf4`; started by it.
    #[command(hide = true)]
    Nf4Contestant,
    /// A contestant of `captioner`; started by it.
    #[command(hide = true)]
    CaptionerContestant,
    /// A contestant of `ranker`; started by it.
    #[command(hide = true)]
    RankerContestant,
    /// A contestant of `gpu`; started by it.
    #[command(hide = true)]
    GpuContestant {
        /// Where it runs.
        #[arg(value_enum)]
        device: gpu::Place,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().bench {
        Bench::Retriever(options) => retriever::run(&options),
        Bench::Nf4(options) => nf4::run(&options),
        Bench::RetrieverContestant { problem, weights } => retriever::contestant(&problem, &weights),
        Bench::Nf4Contestant => nf4::contestant(),
        Bench::Captioner(options) => captioner::run(&options),
        Bench::CaptionerContestant => captioner::contestant(),
        Bench::Ranker(options) => ranker::run(&options),
        Bench::RankerContestant => ranker::contestant(),
        Bench::Gpu(options) => gpu::run(&options),
        Bench::Scaling(options) => scaling::run(&options),
        Bench::GpuContestant { device } => gpu::contestant(device),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
