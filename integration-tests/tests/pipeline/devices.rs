//! What a user hears of this machine's devices.

use mllm4rec_integration_tests::program::{Ended, Workshop};
use serde_json::Value;

/// The report of `doctor --json`.
fn doctor(workshop: &Workshop) -> Value {
    let said = workshop.call(&["doctor", "--json"]).succeeded();
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn doctor_says_what_is_there_and_what_brings_the_rest() {
    let workshop = Workshop::open();
    let report = doctor(&workshop);
    assert!(report["processor"]["threads"].as_u64().unwrap() >= 1 && report["gpus"].is_array(), "{report}");
    let said = workshop.call(&["doctor"]).succeeded().stdout;
    for library in report["libraries"].as_array().unwrap() {
        let name = library["name"].as_str().unwrap();
        let found = library["path"].as_str().or(library["brought_by"].as_str()).unwrap();
        assert!(said.contains(name) && said.contains(found), "{name}: {found}\n{said}");
    }
    assert!(said.contains("without --devices a run computes on"), "{said}");
    assert_eq!(report["usable"].as_bool().unwrap(), report["reason"].is_null());
}

#[test]
fn folders_that_are_named_for_libraries_and_are_none_are_told() {
    let workshop = Workshop::open();
    let output = workshop.command(&["doctor"]).env("MLLM4REC_CUDA_LIBS", "/nowhere/cuda:lib").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for wrong in ["/nowhere/cuda, which is no folder", "lib, which is no absolute path"] {
        assert!(said.contains(&format!("  MLLM4REC_CUDA_LIBS names {wrong}\n")), "{said}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_missed_before_anything_is_computed() {
    let workshop = Workshop::open();
    let report = doctor(&workshop);
    if report["usable"].as_bool().unwrap() {
        println!("skipped: there is a GPU");
        return;
    }
    let run = |devices: &str| workshop.run("root", &["--devices", devices]);
    let Ended { code, stderr, .. } = run("cuda");
    assert_eq!(code, Some(64), "{stderr}");
    let reason = report["reason"].as_str().unwrap();
    assert!(stderr.contains("--devices cuda") && stderr.contains(reason), "{stderr}");
    let Ended { code, stderr, .. } = run("gpu");
    assert!(code == Some(2) && stderr.contains("allowed are auto, cpu, cuda"), "{stderr}");
    assert!(!workshop.path("root").join("tables").exists(), "nothing was computed");
}
