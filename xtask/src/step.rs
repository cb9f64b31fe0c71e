//! One program that is run and timed.

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

impl Step {
    pub(crate) fn cargo(name: &'static str, args: &[&str]) -> Self {
        Self { name, command: cargo(args) }
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
    let args = command.get_args().map(|a| a.to_string_lossy().into_owned());
    ["cargo".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}
