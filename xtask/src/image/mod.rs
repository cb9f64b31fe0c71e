//! `cargo xtask image`: what the Dockerfile would make, without an engine for containers: the steps of its last stages are done to a
//! Debian from debootstrap, and the program runs in that as its user. Root, debootstrap and a mirror of Debian are needed.

mod dockerfile;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use dockerfile::{Instruction, Stage, chain, stages};

use crate::python::{kept, succeed};
use crate::step::cargo;

/// Both images.
const TARGETS: [&str; 2] = ["mllm4rec-coordinator", "mllm4rec"];
/// What makes programs has no business in an image that runs one.
const COMPILERS: [&str; 6] = ["cc", "gcc", "c++", "clang", "rustc", "cargo"];

/// Makes both, looks at them, and runs the demo in the first.
pub(crate) fn run() -> Result<bool> {
    if !cargo(&["build", "--release", "--workspace"]).status()?.success() {
        return Ok(false);
    }
    let stages = stages(&std::fs::read_to_string(crate::root().join("Dockerfile"))?)?;
    let debian = debian()?;
    for target in TARGETS {
        let image = Image { root: crate::target_folder()?.join("image").join(target) };
        image.begin(&debian)?;
        let mut config = Config::default();
        for stage in chain(&stages, target)? {
            image.build(stage, &mut config)?;
        }
        image.must_lack(&COMPILERS)?;
        println!("{target}: {} MiB, of which Debian {} MiB", size(&image.root)?, size(&debian)?);
        image.start(&config, &["--version"])?;
        image.start(&config, &["doctor"])?;
        if target == TARGETS[0] {
            image.start(&config, &["demo", "--root", "file:///tmp/runs"])?;
        }
    }
    Ok(true)
}

/// Debian as the base image has it, made once.
fn debian() -> Result<PathBuf> {
    let folder = kept()?.join("bookworm");
    if !folder.join("made").is_file() {
        let _ = std::fs::remove_dir_all(&folder);
        println!("making a Debian in {}", folder.display());
        succeed(Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).arg(&folder).stdout(Stdio::null()))
            .context("debootstrap, as root, is needed")?;
        std::fs::write(folder.join("made"), "")?;
    }
    Ok(folder)
}

/// MiB of a folder.
fn size(folder: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-sxm"]).arg(folder).output().context("cannot start du")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).context("du says nothing")
}

/// How a container of an image starts.
#[derive(Default)]
struct Config {
    user: String,
    folder: String,
    entrypoint: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A tree of files.
struct Image {
    root: PathBuf,
}

impl Image {
    fn begin(&self, debian: &Path) -> Result<()> {
        let _ = std::fs::remove_dir_all(&self.root);
        std::fs::create_dir_all(self.root.parent().context("a target folder has a parent")?)?;
        succeed(Command::new("cp").args(["-a"]).arg(debian).arg(&self.root))?;
        // Where packages come from is the machine's business.
        succeed(Command::new("cp").args(["-rL", "/etc/apt", "/etc/resolv.conf"]).arg(self.root.join("etc")))
    }

    fn build(&self, stage: &Stage, config: &mut Config) -> Result<()> {
        for Instruction { name, text } in &stage.instructions {
            match name.as_str() {
                "RUN" => succeed(&mut self.command(&["/bin/sh", "-c", text]))?,
                "COPY" => self.copy(text)?,
                "USER" => config.user = text.clone(),
                "WORKDIR" => config.folder = text.clone(),
                "ENTRYPOINT" => config.entrypoint = serde_json::from_str(text).context("ENTRYPOINT is no list")?,
                "ENV" => config.variables.extend(
                    text.split(' ').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())),
                ),
                "EXPOSE" | "CMD" => {}
                _ => bail!("{name} is an instruction that this command does not know"),
            }
        }
        Ok(())
    }

    /// What comes from other stages comes from this machine: the program as it was built here, libraries of CUDA where they are.
    fn copy(&self, text: &str) -> Result<()> {
        match text {
            "--from=build /out/ /" => {
                let program = crate::target_folder()?.join("release/mllm4rec");
                succeed(Command::new("strip").arg("-o").arg(self.root.join("usr/local/bin/mllm4rec")).arg(program))?;
                let share = self.root.join("usr/share/mllm4rec");
                std::fs::create_dir_all(&share)?;
                succeed(Command::new("cp").arg("-r").arg(crate::root().join("configs")).arg(share))
            }
            "--from=cuda /out/ /" => {
                let to = self.root.join("usr/local/lib/cuda");
                std::fs::create_dir_all(&to)?;
                match crate::python::nvrtc_folder() {
                    Some(from) => {
                        succeed(Command::new("sh").args(["-c", "cp -P \"$0\"/libnvrtc* \"$1\""]).arg(from).arg(to))
                    }
                    None => {
                        println!("SKIPPED the libraries of CUDA: there are none here");
                        Ok(())
                    }
                }
            }
            _ => bail!("COPY {text} is one that this command does not know"),
        }
    }

    fn must_lack(&self, programs: &[&str]) -> Result<()> {
        for folder in ["bin", "usr/bin", "usr/local/bin"] {
            for program in programs {
                if self.root.join(folder).join(program).exists() {
                    bail!("{folder}/{program} is in the image");
                }
            }
        }
        Ok(())
    }

    /// A command in the tree, as root.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }

    /// The image's program, as its user, in its folder, with its variables and no others.
    fn start(&self, config: &Config, args: &[&str]) -> Result<()> {
        let user = format!("--userspec={}", config.user);
        let mut command = Command::new("unshare");
        let script = format!("mount -t proc proc \"$0/proc\" && exec chroot {user} \"$0\" \"$@\"");
        command.args(["--mount", "--pid", "--fork", "sh", "-c", &script]).arg(&self.root);
        command.args(["/usr/bin/env", "-i", "-C", &config.folder, "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"]);
        command.args(config.variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(&config.entrypoint).args(args).stdin(Stdio::null());
        println!("── {} {}", config.entrypoint.join(" "), args.join(" "));
        succeed(&mut command)
    }
}
