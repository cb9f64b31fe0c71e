//! Developer commands: `cargo xtask check [--full]`, `sanitize`, `bench`, `gpu` and `demo`.
//!
//! They only start other programs. Everything is built with the release profile and the features of the whole workspace,
//! so that the binary, the tests and these commands share one build.

mod bench;
mod check;
mod executed;
mod gpu;
mod kernels;
mod programs;
mod python;
mod sanitize;
mod step;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

const HELP: &str = "\
cargo xtask check [--full]   set up what tests need, then fmt, clippy, build and every test
                             --full: the tests that start processes three times more, 10,000 seeds of the simulation and
                             every state of the small model, for what shows rarely
cargo xtask sanitize         run the kernels' tests under AddressSanitizer, on AVX-512, AVX2 and neither
cargo xtask bench retriever --data FOLDER [--json] [--rounds N] [--threads 1,2] [--only beauty|movielens]
                             LRURec beside PyTorch twins; FOLDER holds amazon-beauty/user_sequence.txt and
                             ml-latest-small/ratings.csv
cargo xtask bench nf4 [--json] [--rounds N] [--threads 1,2]
                             four-bit weights beside bitsandbytes
cargo xtask bench captioner [--json] [--rounds N] [--threads N]
                             BLIP-2 beside transformers
cargo xtask bench gpu [--device emulated --tiny] [--json FILE] [--markdown FILE] [--rounds N] [--only nf4,attention,…]
                             the kernels of cards beside PyTorch, bitsandbytes and transformers
cargo xtask gpu [--out FOLDER]
                             pack tests and benches for a machine with a card, CUDA 13 and PyTorch but no Rust:
                             FOLDER (target/gpu) gets mllm4rec-gpu.tar.gz and run.sh, which says how it is used
cargo xtask demo [ARGS]      build the program and run its demo";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["check"] => check::run(false),
        ["check", "--full"] => check::run(true),
        ["sanitize"] => sanitize::run(),
        ["bench", bench @ ("retriever" | "nf4" | "captioner" | "gpu"), rest @ ..] => bench::run(bench, rest),
        ["gpu", rest @ ..] => gpu::run(rest),
        ["demo", rest @ ..] => demo(rest),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &[&str]) -> Result<bool> {
    if !step::cargo(&["build", "--release", "--workspace"]).status()?.success() {
        return Ok(false);
    }
    let binary = target_folder()?.join("release").join(format!("mllm4rec{}", std::env::consts::EXE_SUFFIX));
    let status = std::process::Command::new(&binary).arg("demo").args(args).status();
    Ok(status.with_context(|| format!("cannot start {}", binary.display()))?.success())
}

/// The root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root")
}

/// Where cargo builds: this program was built there, in `<target>/<profile>`.
fn target_folder() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    Ok(this.ancestors().nth(2).context("this program is not in a target folder")?.to_owned())
}
