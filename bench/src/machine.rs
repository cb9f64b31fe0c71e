//! What the figures were taken on.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Machine, versions and date.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) system: String,
    pub(crate) date: String,
    pub(crate) rustc: String,
    pub(crate) peers: String,
}

impl Machine {
    /// Of this machine; `python` says the versions of the peers' `packages`.
    pub(crate) fn here(python: &std::path::Path, packages: &[&str]) -> Result<Self> {
        let script = "import sys, platform; from importlib.metadata import version; \
                      print('Python', platform.python_version(), *(f', {p} {version(p)}' for p in sys.argv[1:]), sep=' ')";
        let mut peers = Command::new(python);
        peers.args(["-c", script]).args(packages);
        Ok(Self {
            processor: line("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory_gib().unwrap_or(0.0),
            system: said_by(Command::new("uname").arg("-sr"))?,
            date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d"]))?,
            rustc: said_by(Command::new("rustc").arg("--version"))?,
            peers: said_by(&mut peers)?.replace(" ,", ","),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {} cores, {:.0} GiB, {}", self.processor, self.cores, self.memory_gib, self.system)?;
        write!(f, "{}; {}; {}", self.rustc, self.peers, self.date)
    }
}

/// Lets the system count this process's peak memory anew, where it can; else the peak is that of the whole life.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process held since [`forget_peak`], in bytes.
pub(crate) fn peak_bytes() -> u64 {
    line("/proc/self/status", "VmHWM").and_then(|l| kib(&l)).unwrap_or(0)
}

fn memory_gib() -> Option<f64> {
    Some(kib(&line("/proc/meminfo", "MemTotal")?)? as f64 / (1u64 << 30) as f64)
}

/// Bytes of a text such as `1234 kB`.
fn kib(text: &str) -> Option<u64> {
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What stands behind `key:` in a file of the system.
fn line(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said_by(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !out.status.success() {
        bail!("{:?} failed: {}", command.get_program(), String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
