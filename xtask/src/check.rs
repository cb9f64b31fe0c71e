//! `cargo xtask check`: what must hold before a change is merged.

use std::ffi::OsString;

use anyhow::Result;

use crate::step::{Step, cargo, summarize};
use crate::{kernels, python};

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
    ended.extend(kernels::on_fewer_instructions());
    if full {
        for _ in 0..MORE_ROUNDS {
            ended.push(tests("more rounds", &["--test", "pipeline", "--test", "readers"], python.as_ref()).run());
        }
    }
    let passed = summarize(&ended);
    if python.is_none() {
        println!(
            "SKIPPED reading the tables with DuckDB, Polars and pyarrow: there is no Python with them (see above)"
        );
    }
    Ok(passed)
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
