//! `cargo xtask deny`: licences, sources and known faults of what the program is built from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::python::kept;
use crate::step::{Ended, Step, cargo};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Asks for licences, duplicates of what is banned and sources, and for known faults where their list can be fetched.
pub(crate) fn run() -> Ended {
    const NAME: &str = "deny";
    let program = match program() {
        Ok(program) => program,
        Err(e) => {
            println!("no cargo-deny: {e:#}");
            return Ended::failed(NAME);
        }
    };
    let step = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir(crate::root());
        Step { name: NAME, command }
    };
    let ended = step(&["--log-level", "error", "check", "bans", "licenses", "sources"]).run();
    let fetched =
        Command::new(&program).args(["--log-level", "off", "fetch", "db"]).current_dir(crate::root()).status();
    if !fetched.is_ok_and(|status| status.success()) {
        println!("SKIPPED known faults of the dependencies: the list of RustSec cannot be fetched");
        return ended;
    }
    ended.and(step(&["--log-level", "error", "check", "--disable-fetch", "advisories"]).run())
}

/// The one on the path, or one of our own, which is built once.
fn program() -> Result<PathBuf> {
    if Command::new("cargo-deny").arg("--version").output().is_ok() {
        return Ok("cargo-deny".into());
    }
    let root = kept()?.join("tools").join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        println!("building cargo-deny {VERSION} in {}", root.display());
        let args = ["install", "--quiet", "--locked", "--version", VERSION, "cargo-deny", "--root"];
        let mut command = cargo(&args);
        // Not among our own programs, which have other flags.
        command.arg(&root).env("CARGO_TARGET_DIR", root.join("target")).current_dir(Path::new("/"));
        if !command.status()?.success() {
            bail!("it cannot be built");
        }
        let _ = std::fs::remove_dir_all(root.join("target"));
    }
    Ok(program)
}
