//! The schemas of Kubernetes by a public validator, over several of its versions, and schemas of ours for the kinds that others
//! have added to it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::catalogue::{Rendered, all};

/// Names a Python with kubernetes-validate and jsonschema.
const PYTHON: &str = "MLLM4REC_MANIFESTS";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schemas")
}

/// Whether there is a schema of a kind.
pub(crate) fn has(kind: &str) -> bool {
    folder().join(format!("{}.json", kind.to_lowercase())).is_file()
}

/// What the validator says of documents.
fn validate(python: &Path, documents: &str) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/validate_manifests.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(documents.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn public_schemas_accept_every_document() {
    let Some(python) = std::env::var_os(PYTHON).map(PathBuf::from) else {
        println!("SKIPPED: {PYTHON} names no Python with kubernetes-validate; `cargo xtask check` installs it");
        return;
    };
    let Some(all) = all() else { return };
    let documents: Vec<_> = all.iter().flat_map(|r: &Rendered| &r.documents).collect();
    let (accepted, said) = validate(&python, &serde_json::to_string(&documents).unwrap());
    assert!(accepted, "{said}");
    println!("{said}");

    // And it would say so if they did not.
    let wrong = r#"[{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": []}}]"#;
    assert!(!validate(&python, wrong).0, "an unknown key is accepted");
    let unknown = r#"[{"apiVersion": "x.io/v1", "kind": "Novelty", "metadata": {"name": "x"}}]"#;
    assert!(!validate(&python, unknown).0, "an unknown kind is accepted");
}

/// Policies that somebody copies are to be JSON.
#[test]
fn the_policies_of_the_documentation_can_be_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = text.split("```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(blocks.len() > 5);
    for block in blocks {
        let _: serde_json::Value = serde_json::from_str(block).unwrap_or_else(|e| panic!("{e}: {block}"));
    }
}
