//! The bench of the kernels in miniature, on the emulator: every case runs and computes what it should.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The largest error of a case: rounding of bfloat16 or of 32-bit floats; none of what is compared bit by bit.
fn tolerance(row: &Value) -> f64 {
    match row["bench"].as_str().unwrap() {
        // Three bits of mantissa.
        "fp8_product" => 5e-2,
        "ranker_scores" if row["fp8"] == true => 0.5,
        "copy" | "nf4_dequantize" | "top" => 0.0,
        "product" | "sustained" | "nf4_product" | "nf4_input_gradient" | "attention" | "attention_backward" => 4e-3,
        "ranker_step" | "ranker_scores" => 1e-2,
        _ => 1e-5,
    }
}

#[test]
fn every_case_runs_on_the_emulator() {
    let folder = tempfile::tempdir().unwrap();
    let [json, markdown] = ["results.json", "results.md"].map(|name| folder.path().join(name));
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mllm4rec-bench"));
    command.args(["gpu", "--device", "emulated", "--tiny", "--project"]).arg(project);
    command.arg("--json").arg(&json).arg("--markdown").arg(&markdown);
    let said = command.stdin(Stdio::null()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success());

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let mut ran = Vec::new();
    for row in report["rows"].as_array().unwrap() {
        let (bench, ours) = (row["bench"].as_str().unwrap(), &row["contestants"][0]);
        assert_eq!(ours["failed"], Value::Null, "{bench}");
        assert_eq!(ours["turns"], Value::Array(Vec::new()), "{bench}: there are no times on the emulator");
        if ours["absent"].is_null() {
            let error = ours["error"].as_f64().unwrap_or(0.0);
            assert!(error <= tolerance(row), "{bench}: {error:e}");
            ran.push(bench);
        }
    }
    assert_eq!(ran.len(), report["rows"].as_array().unwrap().len(), "every operation is on a device: {ran:?}");
    let table = std::fs::read_to_string(&markdown).unwrap();
    assert!(table.contains("Emulated, no times") && table.contains("no Python was given"), "{table}");
}

#[test]
fn a_machine_without_a_card_is_told_what_is_missing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mllm4rec-bench"));
    command.args(["gpu", "--only", "nf4", "--tiny", "--project", "."]).env("CUDA_VISIBLE_DEVICES", "");
    let said = command.output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && words.contains("there is nothing to measure: "), "{words}");
}
