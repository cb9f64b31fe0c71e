//! One program that is run and timed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::root;

/// A program and what it is for.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
}

/// How a step ended.
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) passed: bool,
    pub(crate) took: Duration,
}

impl Ended {
    /// A step that could not begin.
    pub(crate) fn failed(name: &'static str) -> Self {
        Self { name, passed: false, took: Duration::ZERO }
    }

    /// This and another part of the same step.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { name: self.name, passed: self.passed && other.passed, took: self.took + other.took }
    }
}

/// Says how every step ended; whether all passed.
pub(crate) fn summarize(ended: &[Ended]) -> bool {
    println!("\n── summary");
    for step in ended {
        let word = if step.passed { "passed" } else { "FAILED" };
        println!("{word}  {:<18} {:>6.1} s", step.name, step.took.as_secs_f64());
    }
    ended.iter().all(|e| e.passed)
}

impl Step {
    pub(crate) fn cargo(name: &'static str, args: &[&str]) -> Self {
        Self { name, command: cargo(args) }
    }

    /// The same with the models of the golden files in the memory of an emulated card.
    pub(crate) fn on_a_device(mut self) -> Self {
        self.command.env("MLLM4REC_TEST_DEVICE", "emulated");
        self
    }

    /// The same with the long loops, of which short ones run otherwise.
    pub(crate) fn in_full(mut self) -> Self {
        self.command.env("MLLM4REC_FULL", "1");
        self
    }

    /// Runs it; what it prints goes where this program prints.
    pub(crate) fn run(mut self) -> Ended {
        println!("\n── {}: {}", self.name, words(&self.command));
        let started = Instant::now();
        let passed = match self.command.status() {
            Ok(status) => status.success(),
            Err(e) => {
                println!("cannot start {:?}: {e}", self.command.get_program());
                false
            }
        };
        Ended { name: self.name, passed, took: started.elapsed() }
    }
}

/// Cargo at the root of the workspace, the one that started this program.
///
/// What `cargo run` tells this program about its own package is taken away again: build scripts look at it, and
/// everything behind them (TLS, the object store, the query engine) would be built anew.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let leaks = name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"));
        if leaks {
            command.env_remove(name);
        }
    }
    command
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [program].into_iter().chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
