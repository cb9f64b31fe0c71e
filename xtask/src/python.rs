//! The Python that reads our tables in tests: a virtual environment, made once and kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Exact versions, so that a new release of a reader is a change of this line.
const PACKAGES: [&str; 3] = ["duckdb==2.0.0", "polars==2.1.0", "pyarrow==26.0.1"];

/// A Python with the readers: the one that `MLLM4REC_PYTHON` names, or one of our own. Says so if there is none.
pub(crate) fn with_readers() -> Option<OsString> {
    if let Some(python) = std::env::var_os("MLLM4REC_PYTHON") {
        return Some(python);
    }
    match environment() {
        Ok(python) => Some(python.into_os_string()),
        Err(e) => {
            println!("no Python with {}: {e:#}\ntests that need it will be SKIPPED", PACKAGES.join(", "));
            None
        }
    }
}

/// The Python of `~/.cache/mllm4rec/venv`, which is made if it is not there or holds other versions.
fn environment() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let folder = Path::new(&home).join(".cache/mllm4rec/venv");
    let python = folder.join("bin/python");
    let installed = folder.join("installed.txt");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&installed).is_ok_and(|packages| packages == wanted) {
        return Ok(python);
    }
    println!("making a Python with {} in {}", PACKAGES.join(", "), folder.display());
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    succeed(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES),
    )?;
    std::fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(python)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}
