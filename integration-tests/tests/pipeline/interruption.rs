//! A job that is interrupted in training goes on where it was and ends with the same bytes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data::job::Stage;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, children, holds, interrupt, terminate, wait};

/// Only the retriever, and long enough to be interrupted.
const LONG: [&str; 10] = [
    "--set",
    r#"stages=["prepare","train_retriever"]"#,
    "--set",
    "retriever.max_epochs=600",
    "--set",
    "retriever.hidden=32",
    "--set",
    "retriever.patience=100000",
    "--set",
    "retriever.validate_every=50",
];

/// The folders of whole checkpoints, by step.
fn steps(artifacts: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let artifacts: Vec<PathBuf> = entries(artifacts).collect();
    let mut steps: Vec<PathBuf> = artifacts.iter().flat_map(|a| entries(&a.join("checkpoints"))).collect();
    steps.retain(|step| step.join("MANIFEST.json").exists());
    steps.sort();
    steps
}

fn number(step: &Path) -> u64 {
    step.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// The weights of a job's retriever.
fn retriever(job: &JobOutputs) -> Vec<u8> {
    job.model(Stage::TrainRetriever, "model.safetensors")
}

/// Looks again and again until something has happened.
fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < Duration::from_secs(60), "not after a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_training_resumes_and_ends_the_same() {
    let workshop = Workshop::open();
    let straight = workshop.finish("straight", &LONG);

    let child = workshop.start("broken", &LONG);
    let artifacts = workshop.path("broken").join("_control/v1/artifacts/train_retriever");
    wait_until("there is a MANIFEST.json", || holds(&artifacts, "MANIFEST.json"));
    let ended = interrupt(child);
    assert_eq!(ended.code, Some(130), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("the same command resumes"), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(20), "leaving took {:?}", ended.took);
    let model = workshop.path("broken").join("models");
    assert!(!holds(&model, "_SUCCESS"), "the training ended before it was interrupted: make it longer");
    assert!(holds(&artifacts, "MANIFEST.json"), "no checkpoint was left");

    let resumed = workshop.finish("broken", &LONG);
    assert!(retriever(&resumed) == retriever(&straight), "the resumed training ended with other weights");
    assert!(!holds(&artifacts, "MANIFEST.json"), "checkpoints of a finished training are left");
}

#[test]
fn a_second_run_leaves_the_first_alone() {
    let workshop = Workshop::open();
    let first = workshop.start("root", &LONG);
    wait_until("there is a run.lock", || holds(&workshop.path("root"), "run.lock"));
    let second = workshop.run("root", &LONG);
    assert_eq!(second.code, Some(75), "{}", second.stderr);
    assert!(
        second.stderr.contains("another `mllm4rec run`, `coordinator`, `rm` or `gc` is at work"),
        "{}",
        second.stderr
    );
    assert!(wait(first).status.success());
}

/// More often than the coordinator lets a shard lose workers that vanish.
#[test]
fn workers_that_are_told_to_leave_cost_nothing() {
    let workshop = Workshop::open();
    let straight = workshop.finish("straight", &LONG);
    let run = workshop.start("restless", &[&LONG[..], &["--json"]].concat());
    let mut told = std::collections::BTreeSet::new();
    let started = Instant::now();
    while told.len() < 7 {
        assert!(started.elapsed() < Duration::from_secs(60), "only {} workers in a minute", told.len());
        for worker in children(&run).into_iter().filter(|pid| !told.contains(pid)).collect::<Vec<_>>() {
            std::thread::sleep(Duration::from_millis(200));
            terminate(worker);
            told.insert(worker);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = wait(run);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("exit status: 143"), "no worker left in order:\n{said}");
    let resumed = workshop.finish("restless", &LONG);
    assert!(retriever(&resumed) == retriever(&straight), "the training ended with other weights");
}

#[test]
fn a_damaged_checkpoint_costs_steps_and_not_the_training() {
    let workshop = Workshop::open();
    let straight = workshop.finish("straight", &LONG);
    let child = workshop.start("damaged", &LONG);
    let artifacts = workshop.path("damaged").join("_control/v1/artifacts/train_retriever");
    wait_until("there are two checkpoints", || steps(&artifacts).len() >= 2);
    assert_eq!(interrupt(child).code, Some(130));
    std::fs::remove_file(steps(&artifacts).last().unwrap().join("optimizer.safetensors")).unwrap();

    let child = workshop.start("damaged", &[&LONG[..], &["--json"]].concat());
    let ended = wait(child);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("looking for an older checkpoint"), "{said}");
    let resumed = workshop.finish("damaged", &LONG);
    assert!(retriever(&resumed) == retriever(&straight), "the training ended with other weights");
}

/// A machine that cannot hold what does not fit into memory: nothing is wrong with the job or the data.
#[test]
fn what_may_pass_says_so_to_the_scheduler() {
    let workshop = Workshop::open();
    let mut run = workshop.command(&["run", workshop.job().to_str().unwrap(), "--root"]);
    let run = run.arg(workshop.path("root")).args(LONG).env("TMPDIR", "/dev/null/nowhere").spawn().unwrap();
    let ended = wait(run);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(75), "{said}");
    assert!(said.contains("failed 3 times") && said.contains("/dev/null/nowhere"), "{said}");
    let _ = workshop.finish("root", &LONG);
}

/// Twice in a row, as a machine that is preempted again and again.
#[test]
fn every_interruption_keeps_what_was_reached() {
    let workshop = Workshop::open();
    let artifacts = workshop.path("root").join("_control/v1/artifacts/train_retriever");
    let step = || steps(&artifacts).last().map_or(0, |folder| number(folder));
    let mut reached = 0;
    for _ in 0..2 {
        let child = workshop.start("root", &LONG);
        wait_until("training is 50 steps further", || step() >= reached + 50);
        let ended = interrupt(child);
        assert_eq!(ended.code, Some(130), "{}\n{}", ended.stdout, ended.stderr);
        assert!(step() > reached, "still at step {reached}");
        reached = step();
        // What writers leave that are killed in the middle of a checkpoint: later steps, without a manifest.
        for stray in ["0000090000", "0000091000"] {
            let folder = steps(&artifacts)[0].with_file_name(stray);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("model.safetensors"), "half").unwrap();
        }
    }
}
