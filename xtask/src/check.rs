//! `cargo xtask check`: what must hold before a change is merged.

use std::ffi::OsString;

use anyhow::Result;

use crate::python;
use crate::step::{Ended, Step, cargo};

/// Rounds that `--full` adds of the tests that start processes.
const MORE_ROUNDS: usize = 3;

/// Runs every step, also behind one that fails, and says how each of them ended.
pub(crate) fn run(full: bool) -> Result<bool> {
    let python = python::with_readers();
    let mut ended = Vec::new();
    ended.push(Step::cargo("format", &["fmt", "--all", "--check"]).run());
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    ended.push(Step::cargo("clippy", &clippy).run());
    ended.push(Step::cargo("build", &["build", "--release", "--workspace"]).run());
    ended.push(tests("tests", &["--no-fail-fast"], python.as_ref()).run());
    if full {
        for _ in 0..MORE_ROUNDS {
            ended.push(tests("more rounds", &["--test", "pipeline", "--test", "readers"], python.as_ref()).run());
        }
    }
    summarize(&ended, python.is_some());
    Ok(ended.iter().all(|e| e.passed))
}

fn tests(name: &'static str, args: &[&str], python: Option<&OsString>) -> Step {
    let mut command = cargo(&["test", "--release", "--workspace"]);
    command.args(args);
    match python {
        Some(python) => command.env("MLLM4REC_PYTHON", python),
        None => command.env_remove("MLLM4REC_PYTHON"),
    };
    Step { name, command }
}

fn summarize(ended: &[Ended], python: bool) {
    println!("\n── summary");
    for step in ended {
        let word = if step.passed { "passed" } else { "FAILED" };
        println!("{word}  {:<12} {:>6.1} s", step.name, step.took.as_secs_f64());
    }
    if !python {
        println!(
            "SKIPPED reading the tables with DuckDB, Polars and pyarrow: there is no Python with them (see above)"
        );
    }
}
