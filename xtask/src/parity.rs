//! `cargo xtask parity`: rankers of another seed beside transformers, PEFT and bitsandbytes, in both directions.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{Step, cargo, summarize};
use crate::{python, root, target_folder};

/// Cases of `make.py`, and those of them that bitsandbytes has packed.
const CASES: [&str; 4] = ["mistral", "llama3", "qwen2", "nf4"];
const PACKED: [&str; 1] = ["nf4"];

/// Has the libraries make cases, compares ours with them, and has the libraries read what ours writes.
pub(crate) fn run(seed: &str) -> Result<bool> {
    let python = python::with_peers()?;
    let scripts = root().join("integration-tests/fixtures/ranker");
    let set = folder_in(&target_folder()?, "parity")?;
    let (cases, ours) = (set.join("ranker"), set.join("ours"));
    let script = |name: &'static str, file: &str, args: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(scripts.join(file)).args(args).env("HF_HUB_OFFLINE", "1").env("PYTHONWARNINGS", "ignore");
        Step { name, command }
    };
    let text = |path: &Path| path.display().to_string();
    let mut ended = vec![script("make", "make.py", &["--out", &text(&cases), "--seed", seed]).run()];
    ended.push(Step::cargo("build", &["build", "--release", "--workspace"]).run());
    let mut tests = cargo(&["test", "--release", "--workspace", "--test", "parity", "--", "ranker"]);
    tests.env("MLLM4REC_FIXTURES", &set);
    ended.push(Step { name: "ours reads", command: tests }.run());
    if ended.iter().all(|step| step.passed) {
        write(&cases, &ours)?;
        ended.push(script("theirs reads", "check.py", &["--cases", &text(&cases), "--ours", &text(&ours)]).run());
    }
    std::fs::remove_dir_all(&set).with_context(|| format!("cannot remove {}", set.display()))?;
    Ok(summarize(&ended))
}

/// Exports and merges the adapter of every case.
fn write(cases: &Path, ours: &Path) -> Result<()> {
    let binary = target_folder()?.join("release").join(format!("mllm4rec{}", std::env::consts::EXE_SUFFIX));
    for name in CASES {
        let (case, out) = (cases.join(name), ours.join(name));
        let adapter = |action: &str, of: &str, to: &str, more: &[&OsStr]| {
            let mut command = Command::new(&binary);
            python::succeed(command.args(["adapter", action]).arg(case.join(of)).arg(out.join(to)).args(more))
        };
        let (base, packed) = (case.join("model"), case.join("packed"));
        adapter("export", "adapter", "exported", &[])?;
        adapter("merge", "trained", "merged", &["--base".as_ref(), base.as_os_str()])?;
        if PACKED.contains(&name) {
            adapter("merge", "adapter", "unpacked", &["--base".as_ref(), packed.as_os_str()])?;
            adapter("merge", "adapter", "as_trained", &["--as-trained".as_ref(), "--base".as_ref(), base.as_os_str()])?;
        }
    }
    Ok(())
}

/// A new and empty folder.
fn folder_in(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
