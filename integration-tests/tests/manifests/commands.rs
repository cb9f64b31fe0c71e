//! What pods are told to run is what the program knows.

use std::collections::BTreeSet;
use std::process::Command;

use mllm4rec_integration_tests::program::binary;

use crate::catalogue::all;
use crate::pods::{list, pods};

fn run(args: &[&str]) -> (bool, String) {
    let output = Command::new(binary()).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn options_are_options_of_the_program() {
    let mut seen = BTreeSet::new();
    for rendered in all().unwrap_or_default() {
        for pod in pods(rendered) {
            for container in pod.containers() {
                let args: Vec<&str> = list(&container["args"]).map(|arg| arg.as_str().unwrap()).collect();
                if seen.insert(args.clone()) {
                    // What comes before `--help` is read first, and refused if it is wrong.
                    let (succeeded, said) = run(&[&args[..], &["--help"]].concat());
                    assert!(succeeded, "{}: {args:?}: {said}", pod.from);
                }
            }
        }
    }
    assert!(!run(&["worker", "--observed=0.0.0.0:9090", "--help"]).0, "a wrong option is not refused");
}

#[test]
fn variables_are_variables_of_the_program() {
    let helps = ["worker", "coordinator", "submit"].map(|command| run(&[command, "--help"]).1).join("\n");
    for rendered in all().unwrap_or_default() {
        for map in rendered.of_kind("ConfigMap").filter(|map| map["metadata"]["name"] == "mllm4rec") {
            let data = map["data"].as_object().unwrap();
            let pod_own = ["MLLM4REC_TLS_CA", "MLLM4REC_TLS_CERT", "MLLM4REC_TLS_KEY"];
            for name in data.keys().map(String::as_str).chain(pod_own).filter(|name| name.starts_with("MLLM4REC_")) {
                assert!(helps.contains(&format!("[env: {name}")), "{}: nobody reads {name}", rendered.name);
            }
        }
    }
}
