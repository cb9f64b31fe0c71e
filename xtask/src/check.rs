//! `cargo xtask check`: what must hold before a change is merged.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::step::{Step, cargo, summarize};
use crate::{deny, executed, kernels, python, stores};

/// Rounds that `--full` adds of the tests that start processes.
const MORE_ROUNDS: usize = 3;
/// Seeds of the simulation with `--full`.
const MORE_SEEDS: &str = "10000";

/// Runs every step, also behind one that fails, and says how each of them ended.
pub(crate) fn run(full: bool) -> Result<bool> {
    let means = Means {
        python: python::with_readers(),
        moto: python::with_moto(),
        schemas: python::with_schemas(),
        azurite: stores::azurite(),
        nvrtc: python::nvrtc_folder(),
        executed: executed::folder()?,
    };
    let mut ended = Vec::new();
    ended.push(Step::cargo("format", &["fmt", "--all", "--check"]).run());
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    ended.push(Step::cargo("clippy", &clippy).run());
    ended.push(deny::run());
    ended.push(Step::cargo("build", &["build", "--release", "--workspace"]).run());
    ended.push(means.tests("tests", &["--no-fail-fast"]).run());
    ended.push(means.tests("on a device", &["--test", "parity"]).on_a_device().run());
    ended.push(executed::compare(&means.executed));
    ended.extend(kernels::on_fewer_instructions());
    if full {
        ended.push(means.tests("stores, in full", &["--test", "stores", "--", "--nocapture"]).in_full().run());
        let mut simulation = means.tests("simulation", &["--test", "simulation", "--test", "exhaustive"]);
        simulation.command.env("MLLM4REC_SEEDS", MORE_SEEDS).env("MLLM4REC_EXHAUSTIVE", "1");
        ended.push(simulation.run());
        ended
            .push(means.tests("reliability, in full", &["--test", "reliability", "--", "--nocapture"]).in_full().run());
        ended.push(means.tests("partitions, in full", &["--test", "partitions", "--", "--nocapture"]).in_full().run());
        for _ in 0..MORE_ROUNDS {
            ended.push(means.tests("more rounds", &["--test", "pipeline", "--test", "readers"]).run());
        }
    }
    let passed = summarize(&ended);
    if means.python.is_none() {
        println!(
            "SKIPPED reading the tables with DuckDB, Polars and pyarrow: there is no Python with them (see above)"
        );
    }
    if means.moto.is_none() {
        println!("SKIPPED everything on S3: there is no moto (see above)");
    }
    if means.azurite.is_none() {
        println!("SKIPPED everything on Azure: there is no Azurite (see above)");
    }
    if means.schemas.is_none() {
        println!("SKIPPED the schemas of Kubernetes: there is no Python with them (see above)");
    }
    if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        println!("SKIPPED the manifests of k8s/: there is no kubectl to render them");
    }
    if means.nvrtc.is_none() {
        println!("SKIPPED compiling the kernels for GPUs: there is no NVRTC (see above)");
    }
    Ok(passed)
}

/// What tests use and need not have.
struct Means {
    /// A Python with the readers of tables.
    python: Option<OsString>,
    /// A Python with moto, which stands for S3.
    moto: Option<OsString>,
    /// A Python with the schemas of Kubernetes.
    schemas: Option<OsString>,
    /// The package that stands for Azure.
    azurite: Option<OsString>,
    /// Where NVRTC is.
    nvrtc: Option<OsString>,
    /// Where the emulator writes the names of the kernels that it runs.
    executed: PathBuf,
}

impl Means {
    fn tests(&self, name: &'static str, args: &[&str]) -> Step {
        let mut command = cargo(&["test", "--release", "--workspace"]);
        command.args(args).env(executed::VARIABLE, &self.executed);
        let programs = [
            ("MLLM4REC_PYTHON", &self.python),
            ("MLLM4REC_MOTO", &self.moto),
            ("MLLM4REC_MANIFESTS", &self.schemas),
            ("MLLM4REC_AZURITE", &self.azurite),
        ];
        for (variable, program) in programs {
            match program {
                Some(program) => command.env(variable, program),
                None => command.env_remove(variable),
            };
        }
        if let Some(folder) = &self.nvrtc {
            // Its absence is an error from here on.
            command.env("MLLM4REC_CUDA_LIBS", folder).env("MLLM4REC_NEED_NVRTC", "1");
        }
        Step { name, command }
    }
}
