//! `cargo xtask gpu`: the tests and benches of the kernels for a machine with a card, in one archive and one script.
//!
//! That machine has CUDA 13 and PyTorch, no Rust and no network. `run.sh` unpacks the archive beside it and runs what it is
//! asked to; it says itself how.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::programs::{self, TestProgram};
use crate::{python, root, step, target_folder};

/// What the archive and the folder in it are called.
const NAME: &str = "mllm4rec-gpu";
/// What the script is called.
const SCRIPT: &str = "run.sh";
/// The script itself.
const RUN: &str = include_str!("run.sh");
/// Where such machines are rented, no more than this goes there at a time.
const MOST_BYTES: u64 = 60_000_000;
/// Libraries of bitsandbytes that are taken along: those for CUDA 13.
const KEPT_LIBRARIES: &str = "libbitsandbytes_cuda13";

/// Builds everything and packs it into a folder, or `target/gpu`.
pub(crate) fn run(out: Option<&str>) -> Result<bool> {
    let out = match out {
        Some(folder) => PathBuf::from(folder),
        None => target_folder()?.join("gpu"),
    };
    if !step::cargo(&["build", "--release", "--workspace"]).status()?.success() {
        return Ok(false);
    }
    let tree = out.join(NAME);
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    take_programs(&programs::tests()?, &tree.join("bin"))?;
    copy_folder(&root().join("bench/twins"), &tree.join("project/bench/twins"))?;
    copy_folder(&root().join("integration-tests/fixtures"), &tree.join("fixtures"))?;
    let peer = take_bitsandbytes(&tree.join("python"));
    let peer = peer.unwrap_or_else(|e| format!("without bitsandbytes: {e:#}"));
    fs::write(tree.join("made.txt"), format!("{}\n{peer}\n", origin()))?;
    write_script(&tree.join(SCRIPT))?;
    write_script(&out.join(SCRIPT))?;
    let archive = pack(&out)?;
    let bytes = check_size(&archive, MOST_BYTES)?;
    println!("{}: {:.1} MB, {peer}", archive.display(), bytes as f64 / 1e6);
    println!(
        "Take it and {} to a machine with a card, and there run `bash {SCRIPT} help`.",
        out.join(SCRIPT).display()
    );
    Ok(true)
}

/// The programs: tests of the kernels and of the models, the comparison with golden files, the benches.
fn take_programs(tests: &[TestProgram], bin: &Path) -> Result<()> {
    fs::create_dir_all(bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let find = |what: &str, wanted: &dyn Fn(&&TestProgram) -> bool| {
        let found = tests.iter().find(wanted).with_context(|| format!("cargo names no program with {what}"));
        found.map(|program| program.path.clone())
    };
    let bench = target_folder()?.join("release/mllm4rec-bench");
    let taken = [
        ("kernels-tests", find("the tests of the kernels", &|p| p.within("mllm4rec-kernels"))?),
        ("model-tests", find("the tests of the models", &|p| p.within("mllm4rec-model"))?),
        ("parity-tests", find("the golden files", &|p| p.beside("mllm4rec-integration-tests", "parity"))?),
        ("mllm4rec-bench", bench),
    ];
    taken.iter().try_for_each(|(name, from)| strip(from, &bin.join(name)))
}

/// Copies a program without its symbols, or as it is where nothing takes them away.
fn strip(from: &Path, to: &Path) -> Result<()> {
    match Command::new("strip").arg("-o").arg(to).arg(from).status() {
        Ok(status) if status.success() => Ok(()),
        _ => {
            println!("{} keeps its symbols: there is no `strip`", to.display());
            fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
        }
    }
}

/// bitsandbytes without what is for other devices; says which.
fn take_bitsandbytes(to: &Path) -> Result<String> {
    let (requirement, wheel) = python::wheel("bitsandbytes")?;
    fs::create_dir_all(to)?;
    python::succeed(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(to))?;
    for entry in fs::read_dir(to.join("bitsandbytes"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension() == Some(OsStr::new("so")) && !name.starts_with(KEPT_LIBRARIES) {
            fs::remove_file(&path)?;
        }
    }
    Ok(format!("with {requirement}, for CUDA 13"))
}

/// What the archive was made from.
fn origin() -> String {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = said("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    let compiler = said("rustc", &["--version"]);
    let unknown = || "unknown".to_owned();
    format!("commit {}, {}", commit.unwrap_or_else(unknown), compiler.unwrap_or_else(unknown))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_script(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, RUN).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn pack(out: &Path) -> Result<PathBuf> {
    let archive = out.join(format!("{NAME}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-czf"]).arg(&archive).arg("-C").arg(out).arg(NAME);
    python::succeed(&mut tar)?;
    Ok(archive)
}

/// The size of a file.
///
/// # Errors
/// If that is more than it may be: whoever has to leave something out decides what.
fn check_size(archive: &Path, most: u64) -> Result<u64> {
    let bytes = fs::metadata(archive).with_context(|| format!("there is no {}", archive.display()))?.len();
    if bytes > most {
        bail!("{} has {:.1} MB, and may have {:.1}", archive.display(), bytes as f64 / 1e6, most as f64 / 1e6);
    }
    Ok(bytes)
}
