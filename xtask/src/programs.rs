//! The test programs of the workspace, as cargo names them.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step::cargo;

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    package: String,
    target: String,
    /// Whether it holds the tests within a library.
    library: bool,
    pub(crate) path: PathBuf,
}

impl TestProgram {
    /// Whether it is of a package.
    pub(crate) fn of(&self, package: &str) -> bool {
        self.package == package
    }

    /// Whether it holds the tests within the library of a package.
    pub(crate) fn within(&self, package: &str) -> bool {
        self.library && self.of(package)
    }

    /// Whether it is one of the tests beside the library of a package.
    pub(crate) fn beside(&self, package: &str, test: &str) -> bool {
        !self.library && self.of(package) && self.target == test
    }
}

/// All that `cargo test --workspace` runs, with the features of the whole workspace; built if need be.
pub(crate) fn tests() -> Result<Vec<TestProgram>> {
    let mut command = cargo(&["test", "--release", "--workspace", "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(test_program).collect())
}

/// The program that one of cargo's messages is about, if it is a test.
fn test_program(message: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    // `…#name@version`, or `…/name#version`.
    let (folder, id) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = id.split_once('@').map_or_else(|| folder.rsplit('/').next(), |(name, _)| Some(name))?;
    Some(TestProgram {
        package: package.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        library: message["target"]["kind"].as_array()?.iter().any(|kind| kind == "lib"),
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, kind: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///src/{package}",
            "target":{{"name":"a_name","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
        )
    }

    #[test]
    fn test_programs_are_told_by_package_and_kind() {
        let path = r#""/target/release/deps/a_name-1""#;
        let found = test_program(&message("kernels#mllm4rec-kernels@0.1.0", "test", true, path)).expect("it is one");
        assert_eq!(found.path, PathBuf::from("/target/release/deps/a_name-1"));
        assert!(found.of("mllm4rec-kernels") && found.beside("mllm4rec-kernels", "a_name"));
        assert!(!found.within("mllm4rec-kernels") && !found.beside("mllm4rec-model", "a_name"));
        let found = test_program(&message("xtask#0.1.0", "lib", true, path)).expect("it is one");
        assert!(found.within("xtask"));
        assert_eq!(test_program(&message("kernels#mllm4rec-kernels@0.1.0", "lib", false, "null")), None);
        assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(test_program("warning: not JSON"), None);
    }
}
