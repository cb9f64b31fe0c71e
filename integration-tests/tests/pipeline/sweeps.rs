//! A sweep goes on with the best of its trials, and each trial is the training of a job of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data::artifact::ArtifactId;
use data::artifact::sweep::{CHOICE, Choice};
use data::job::{Split, Stage};
use data::tables::{CandidateRow, RankingRow};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, holds, interrupt};
use serde_json::{Value, json};

use super::earlier::{finish, models_of, nightly};

const TEST: Option<Split> = Some(Split::Test);
const RETRIEVAL: &str = r#"stages=["prepare","train_retriever","retrieve","evaluate"]"#;
/// The job file has 1e-3, which is not tried.
const RATES: [&str; 3] = ["0.00001", "0.02", "0.005"];

/// The done record of the one shard of a trained artifact.
fn record(root: &Path, artifact: &ArtifactId) -> Value {
    let path = root.join(artifact.control_prefix()).join("done/00000.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn choice(root: &Path, artifact: &ArtifactId) -> Choice {
    serde_json::from_value(record(root, artifact)["notes"][CHOICE].clone()).unwrap()
}

/// The artifacts of a job's trials in the order of the grid, with their labels.
fn trials(job: &JobOutputs, stage: Stage) -> Vec<(String, ArtifactId)> {
    let trial = |s: &coordinator::records::StageRecord| Some((s.trial.clone()?, s.artifact()));
    job.stages().iter().filter(|s| s.stage == stage).filter_map(trial).collect()
}

/// The retriever of a job and its best figure on validation.
fn alone(workshop: &Workshop, rate: &str) -> (f64, Vec<u8>) {
    let job = workshop.job().display().to_string();
    let (_, _, outputs) = finish(workshop, &job, rate, &[RETRIEVAL, &format!("retriever.learning_rate={rate}")]);
    let done = record(&workshop.path(rate), &outputs.artifact(Stage::TrainRetriever, None));
    let figure = done["notes"]["best_recall@10"].as_f64().unwrap();
    (figure, outputs.model(Stage::TrainRetriever, "model.safetensors"))
}

/// The job of [`RATES`] under a root, on two workers.
fn sweep(workshop: &Workshop, root: &str) -> (String, Value, JobOutputs) {
    let rates = format!("sweep.retriever.learning_rate=[{}]", RATES.join(", "));
    let job = workshop.job().display().to_string();
    finish(workshop, &job, root, &[RETRIEVAL, &rates, "cluster.workers=2"])
}

#[test]
fn the_trial_is_chosen_that_separate_jobs_show_to_be_best() {
    let workshop = Workshop::open();
    let (_, said, swept) = sweep(&workshop, "root");
    let separate: Vec<(f64, Vec<u8>)> = RATES.iter().map(|rate| alone(&workshop, rate)).collect();
    let found = choice(&workshop.path("root"), &swept.artifact(Stage::TrainRetriever, None));
    // A figure that goes through JSON several times may lose its last bit.
    let same = |one: f64, other: f64| (one - other).abs() < 1e-12;
    let figures: Vec<f64> = found.trials.iter().filter_map(|trial| trial.figure).collect();
    assert_eq!(figures.len(), separate.len());
    assert!(figures.iter().zip(&separate).all(|(one, (other, _))| same(*one, *other)), "{figures:?}");
    let best = separate.iter().map(|(figure, _)| *figure).fold(f64::MIN, f64::max);
    let first = separate.iter().position(|(figure, _)| *figure == best).unwrap();
    assert!(separate.iter().any(|(figure, _)| *figure < best), "the trials are all the same: nothing is shown");
    assert_eq!(found.chosen, first + 1);
    assert_eq!(found.settings["retriever.learning_rate"], json!(RATES[first].parse::<f64>().unwrap()));
    assert!(swept.model(Stage::TrainRetriever, "model.safetensors") == separate[first].1, "another model was copied");
    let report = &said["report"];
    assert_eq!(report["sweep"]["retriever"]["chosen"], first + 1);
    assert!(same(report["retriever_training"]["best_recall@10"].as_f64().unwrap(), best), "{report:#}");
    let label = format!("train_retriever[learning_rate={}]", RATES[0]);
    assert!(report["timings"][&label]["steps"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_job_with_the_chosen_settings_finds_its_model_trained() {
    let workshop = Workshop::open();
    let (swept, _, tried) = sweep(&workshop, "root");
    let root = workshop.path("root");
    let found = choice(&root, &tried.artifact(Stage::TrainRetriever, None));
    let (_, trial) = trials(&tried, Stage::TrainRetriever)[found.chosen - 1].clone();
    let before = record(&root, &trial);
    let rate = format!("retriever.learning_rate={}", found.settings["retriever.learning_rate"]);
    let job = workshop.job().display().to_string();
    let (single, _, outputs) = finish(&workshop, &job, "root", &[RETRIEVAL, &rate]);
    assert_eq!(outputs.artifact(Stage::TrainRetriever, None), trial);
    assert_eq!(outputs.artifact(Stage::Prepare, None), tried.artifact(Stage::Prepare, None));
    assert_eq!(record(&root, &trial), before, "it was trained again");
    let [ours, theirs] = [&tried, &outputs].map(|job| job.rows::<CandidateRow>(Stage::Retrieve, TEST));
    assert!(!ours.is_empty() && ours == theirs, "the choice retrieves as the trial does");

    compared(&workshop, &swept, &single, &found);

    // What the other job names stays; the trials that only the sweep had go.
    let folder = root.display().to_string();
    let _ = workshop.call(&["rm", &swept, "--root", &folder]).succeeded();
    let model = |artifact: &ArtifactId| root.join(artifact.model_prefix()).join("_SUCCESS").exists();
    for (place, (label, artifact)) in trials(&tried, Stage::TrainRetriever).iter().enumerate() {
        assert_eq!(model(artifact), place + 1 == found.chosen, "{label}");
    }
    assert!(!model(&tried.artifact(Stage::TrainRetriever, None)));
}

/// The sweep and the job of its winner side by side, and the trials of the sweep.
fn compared(workshop: &Workshop, swept: &str, single: &str, found: &Choice) {
    let folder = workshop.path("root").display().to_string();
    let compare = |more: &[&str]| {
        let args = [&["runs", "compare"], more, &["--root", &folder, "--json"]].concat();
        serde_json::from_str::<Value>(&workshop.call(&args).succeeded().stdout).unwrap()
    };
    let both = compare(&[swept, single, "nobody"]);
    let jobs = both["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), &jobs[0]["best"], &jobs[1]["best"]), (2, &json!(true), &json!(false)));
    assert_eq!(jobs[0]["settings"], json!({}), "the winner's settings are those of the sweep's job");
    assert_eq!(jobs[0]["retriever"], jobs[1]["retriever"]);
    assert_eq!(jobs[0]["trials"], json!({"retriever": 3}));
    assert_eq!(both["missing"][0]["job"], "nobody");
    let trials = &compare(&[swept, "--trials"])[0]["models"][0];
    assert_eq!(trials["chosen"], found.chosen);
    assert_eq!(trials["trials"][0]["trial"], found.chosen, "the best comes first");
    let none = workshop.call(&["runs", "compare", "nobody", "--root", &folder]);
    assert_eq!(none.code, Some(64), "{}", none.stderr);
    assert!(none.stderr.contains("nothing to compare: nobody: there is no job"), "{}", none.stderr);
    let status = workshop.call(&["status", swept, "--root", &folder, "--json"]).succeeded();
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let labels: Vec<&Value> = status["stages"].as_array().unwrap().iter().map(|s| &s["trial"]).collect();
    let label = |rate: &str| json!(format!("learning_rate={rate}"));
    assert_eq!(labels[1..5], [&label(RATES[0]), &label(RATES[1]), &label(RATES[2]), &Value::Null]);
    let table = workshop.call(&["runs", "compare", swept, "--trials", "--root", &folder]).succeeded().stdout;
    assert!(table.contains(&format!("{} ◄", found.chosen)) && table.contains("best_recall@10"), "{table}");
}

/// The job file says `history = 2`, which is not tried: whoever scores with it shows other prompts than the winner's.
#[test]
fn rankings_are_made_with_the_settings_of_the_winner() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let grid = ["sweep.retriever.dropout=[0.1, 0.4]", "sweep.ranker.history=[1, 5]", "ranker.history=2"];
    let small = ["ranker.max_steps=3", r#"splits=["test"]"#, "cluster.workers=2"];
    let (swept, said, tried) = finish(&workshop, &job, "root", &[&grid[..], &small].concat());
    let root = workshop.path("root");
    let [retriever, ranker] =
        [Stage::TrainRetriever, Stage::TrainRanker].map(|stage| choice(&root, &tried.artifact(stage, None)).settings);
    assert_eq!(said["report"]["sweep"]["ranker"]["settings"], json!(ranker));
    let winner = [
        format!("retriever.dropout={}", retriever["retriever.dropout"]),
        format!("ranker.history={}", ranker["ranker.history"]),
    ];
    let sets: Vec<&str> =
        winner.iter().map(String::as_str).chain(["ranker.max_steps=3", r#"splits=["test","all"]"#]).collect();
    let (_, _, alone) = finish(&workshop, &job, "alone", &sets);
    let rankings = |job: &JobOutputs, split| job.rows::<RankingRow>(Stage::Rank, split);
    assert!(rankings(&tried, TEST) == rankings(&alone, TEST), "other prompts than those of the winner");

    let all = Some(Split::All);
    let night = nightly(&workshop, "data", "", &models_of(&swept));
    let (_, _, scored) = finish(&workshop, &night, "root", &[]);
    assert!(rankings(&scored, all) == rankings(&alone, all), "a later job has other prompts than the winner");
}

/// Two trials, long enough to be interrupted.
const LONG: [&str; 7] = [
    r#"stages=["prepare","train_retriever"]"#,
    "sweep.retriever.weight_decay=[0.0, 0.1]",
    "retriever.max_epochs=300",
    "retriever.hidden=32",
    "retriever.patience=100000",
    "retriever.validate_every=50",
    "cluster.workers=2",
];

/// How many trainings have left a whole checkpoint.
fn begun(artifacts: &Path) -> usize {
    let folders = std::fs::read_dir(artifacts).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder: &PathBuf| holds(&folder.join("checkpoints"), "MANIFEST.json")).count()
}

#[test]
fn an_interrupted_sweep_goes_on_with_every_trial_where_it_was() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let (_, _, straight) = finish(&workshop, &job, "straight", &LONG);
    let sets: Vec<&str> = LONG.iter().flat_map(|set| ["--set", set]).collect();
    let child = workshop.start("broken", &sets);
    let artifacts = workshop.path("broken").join("_control/v1/artifacts/train_retriever");
    let started = Instant::now();
    while begun(&artifacts) < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "no two trials at once after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = interrupt(child);
    assert_eq!(ended.code, Some(130), "{}\n{}", ended.stdout, ended.stderr);
    assert!(!holds(&workshop.path("broken").join("models"), "_SUCCESS"), "it ended before it was interrupted");
    let (_, _, resumed) = finish(&workshop, &job, "broken", &LONG);
    let made = |job: &JobOutputs, root: &str| {
        let choice = choice(&workshop.path(root), &job.artifact(Stage::TrainRetriever, None));
        (choice, job.model(Stage::TrainRetriever, "model.safetensors"))
    };
    assert!(made(&resumed, "broken") == made(&straight, "straight"), "the resumed sweep ended in another way");
}
