//! `cargo xtask bench`: figures beside peers, in the same run.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{python, root, step, target_folder};

/// Builds the benches, finds or makes the Python of the peers, and runs one bench with the given arguments.
pub(crate) fn run(bench: &str, args: &[&str]) -> Result<bool> {
    let python = python::with_peers()?;
    if !step::cargo(&["build", "--release", "--workspace", "--quiet"]).status()?.success() {
        return Ok(false);
    }
    let binary = target_folder()?.join("release").join(format!("mllm4rec-bench{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&binary);
    command.arg(bench).arg("--python").arg(python).arg("--project").arg(root()).args(args);
    Ok(command.status().with_context(|| format!("cannot start {}", binary.display()))?.success())
}
