//! The tests of the kernels on fewer instructions than this processor has.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::root;
use crate::step::{Ended, Step, cargo};

/// The variable that the kernels read, see the documentation of their crate.
pub(crate) const VARIABLE: &str = "MLLM4REC_SIMD";

/// Runs the programs that `cargo test --workspace` has built, so that nothing is built again, on the instructions that it
/// did not use on a processor with all of them.
pub(crate) fn on_fewer_instructions() -> Vec<Ended> {
    let programs = match test_programs() {
        Ok(programs) => programs,
        Err(e) => {
            println!("\n── kernels: {e:#}");
            return vec![Ended::failed("kernels")];
        }
    };
    let run = |name, instructions| {
        let ended = programs.iter().map(|program| {
            let mut command = Command::new(program);
            // What runs on a device does not use these instructions.
            command.args(["--skip", "device", "--skip", "cuda::"]);
            command.env(VARIABLE, instructions).current_dir(root().join("kernels"));
            Step { name, command }.run()
        });
        ended.reduce(Ended::and).unwrap_or_else(|| Ended::failed(name))
    };
    vec![run("kernels (avx2)", "avx2"), run("kernels (portable)", "portable")]
}

/// The kernels' test programs with the features of the whole workspace.
fn test_programs() -> Result<Vec<PathBuf>> {
    let mut command = cargo(&["test", "--release", "--workspace", "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo ended with {}", output.status);
    }
    let programs: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout).lines().filter_map(test_program).collect();
    if programs.is_empty() {
        bail!("cargo names no test program of theirs");
    }
    Ok(programs)
}

/// The program that one of cargo's messages is about, if it is a test of the kernels.
fn test_program(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let of_kernels = message["package_id"].as_str()?.contains("mllm4rec-kernels@");
    (of_kernels && message["profile"]["test"] == true).then(|| message["executable"].as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_of_the_kernels_and_nothing_else() {
        let message = |package: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///src/kernels#{package}@0.1.0",
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let program = message("mllm4rec-kernels", true, r#""/target/release/deps/autograd-1""#);
        assert_eq!(test_program(&program), Some("/target/release/deps/autograd-1".into()));
        assert_eq!(test_program(&message("mllm4rec-kernels", false, "null")), None);
        assert_eq!(test_program(&message("mllm4rec-model", true, r#""/target/release/deps/model-1""#)), None);
        assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(test_program("warning: not JSON"), None);
    }
}
