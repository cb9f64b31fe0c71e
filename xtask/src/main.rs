//! Developer commands: `cargo xtask check [--full]`, `parity`, `deny`, `manifests`, `image`, `sanitize`, `bench`, `gpu` and `demo`.
//!
//! They only start other programs. Everything is built with the release profile and the features of the whole workspace,
//! so that the binary, the tests and these commands share one build.

mod bench;
mod check;
mod deny;
mod executed;
mod gpu;
mod help;
mod image;
mod kernels;
mod manifests;
mod parity;
mod programs;
mod python;
mod sanitize;
mod step;
mod stores;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(help) = help::asked(&args) {
        println!("{help}");
        return ExitCode::SUCCESS;
    }
    let outcome = match args.as_slice() {
        ["check"] => check::run(false),
        ["check", "--full"] => check::run(true),
        ["sanitize"] => sanitize::run(),
        ["manifests"] => manifests::run(),
        ["deny"] => Ok(step::summarize(&[deny::run()])),
        ["image"] => image::run(),
        ["bench", bench @ ("retriever" | "nf4" | "captioner" | "ranker" | "gpu"), rest @ ..] => bench::run(bench, rest),
        ["parity"] => parity::run("54"),
        ["parity", "--seed", seed] => parity::run(seed),
        ["gpu"] => gpu::run(None),
        ["gpu", "--out", folder] if !folder.starts_with('-') => gpu::run(Some(folder)),
        ["demo", rest @ ..] => demo(rest),
        _ => {
            eprintln!("{}", help::refusal(&args));
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
