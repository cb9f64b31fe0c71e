//! `cargo xtask manifests`: what others think of the Dockerfile and of the manifests in `k8s/`. What a check asks of them is in
//! `integration-tests`; this asks checkov and hadolint as well, which are large, and says with `k8s/checkov.yaml` what they ask in vain.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::python;
use crate::step::{Step, summarize};

/// Renders every overlay and runs both.
pub(crate) fn run() -> Result<bool> {
    let programs = python::linters()?;
    let folder = crate::target_folder()?.join("manifests");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for overlay in std::fs::read_dir(crate::root().join("k8s/overlays"))? {
        let path = overlay?.path();
        let output = Command::new("kubectl").arg("kustomize").arg(&path).output().context("there is no kubectl")?;
        if !output.status.success() {
            bail!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        std::fs::write(folder.join(format!("{name}.yaml")), output.stdout)?;
    }
    let step = |name, program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(crate::root());
        Step { name, command }
    };
    let mut hadolint = step("hadolint", "hadolint");
    hadolint.command.arg("Dockerfile");
    let mut rendered = step("checkov, manifests", "checkov");
    rendered
        .command
        .args(["--config-file", "k8s/checkov.yaml", "--skip-download", "--framework", "kubernetes", "-d"])
        .arg(folder);
    let mut image = step("checkov, image", "checkov");
    image.command.args([
        "--config-file",
        "k8s/checkov.yaml",
        "--skip-download",
        "--framework",
        "dockerfile",
        "-f",
        "Dockerfile",
    ]);
    Ok(summarize(&[hadolint.run(), rendered.run(), image.run()]))
}
