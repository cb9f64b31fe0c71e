//! Jobs go, and with them what no other job needs; what others need stays as it is.

use std::path::Path;

use data::job::{Split, Stage};
use data::tables::CandidateRow;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Ended, Workshop, holds, wait};
use serde_json::Value;

/// Stages that need no language model.
const WITHOUT_RANKER: &str = r#"stages=["prepare","caption","train_retriever","retrieve","evaluate"]"#;

/// Runs a job to its end. Its id, and what it wrote.
fn finish(workshop: &Workshop, more: &[&str]) -> (String, JobOutputs) {
    let ended = workshop.run("root", &[&["--set", WITHOUT_RANKER, "--json"], more].concat()).succeeded();
    let job = json(&ended)["job"].as_str().unwrap().to_owned();
    let outputs = JobOutputs::open(&workshop.path("root"), &job);
    (job, outputs)
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", ended.stdout, ended.stderr))
}

fn at_root(workshop: &Workshop, args: &[&str]) -> Ended {
    let root = workshop.path("root").display().to_string();
    workshop.call(&[args, &["--root", &root]].concat())
}

fn folder(workshop: &Workshop, job: &JobOutputs, stage: Stage, split: Option<Split>) -> std::path::PathBuf {
    workshop.path("root").join(job.artifact(stage, split).control_prefix())
}

/// Every file below a folder that is not the program's own.
fn tables(root: &Path) -> usize {
    let count = |folder: &Path| std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().count());
    ["tables", "models"]
        .into_iter()
        .flat_map(|top| std::fs::read_dir(root.join(top)))
        .flatten()
        .flatten()
        .map(|e| count(&e.path()))
        .sum()
}

#[test]
fn one_of_two_jobs_goes_and_the_other_stays_whole() {
    let workshop = Workshop::open();
    let (one, first) = finish(&workshop, &[]);
    let (two, second) = finish(&workshop, &["--set", "retriever.candidates=5"]);
    let rows: Vec<CandidateRow> = second.rows(Stage::Retrieve, Some(Split::Test));

    let would = json(&at_root(&workshop, &["rm", &one, "--dry-run", "--json"]).succeeded());
    let gone = json(&at_root(&workshop, &["rm", &one, "--json"]).succeeded());
    assert_eq!((&would["bytes"], &would["objects"]), (&gone["bytes"], &gone["objects"]));
    assert!(gone["bytes"].as_u64().unwrap() > 1000, "{gone:#}");
    assert!(!folder(&workshop, &first, Stage::Retrieve, Some(Split::Test)).exists(), "no empty folder is left");
    assert!(folder(&workshop, &first, Stage::Prepare, None).join("spec.json").exists());
    let kept = gone["kept"].as_array().unwrap();
    assert!(kept.len() == 3 && kept.iter().all(|k| k["job"] == two.as_str()), "{gone:#}");
    let still: Vec<CandidateRow> = second.rows(Stage::Retrieve, Some(Split::Test));
    assert_eq!(still, rows);

    let listed = at_root(&workshop, &["outputs"]).succeeded().stdout;
    assert!(!listed.contains(&one) && listed.contains(&two), "{listed}");
    let shown = at_root(&workshop, &["outputs", &one]);
    assert!(shown.code == Some(64) && shown.stderr.contains("was removed"), "{}", shown.stderr);

    // The same file again is a new job, and makes anew only what went.
    let (again, third) = finish(&workshop, &[]);
    assert_eq!(again, format!("{one}.2"));
    let _: Vec<CandidateRow> = third.rows(Stage::Retrieve, Some(Split::Test));
    for job in [&again, &two] {
        let said = at_root(&workshop, &["rm", job]).succeeded().stdout;
        assert!(said.contains(&format!("job {job} is removed")), "{said}");
    }
    assert_eq!(tables(&workshop.path("root")), 0, "nothing is left when all jobs are gone");
}

#[test]
fn unfinished_attempts_and_scratch_are_collected() {
    let workshop = Workshop::open();
    let (_, job) = finish(&workshop, &[]);
    let rows: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(Split::Test));
    let root = workshop.path("root");
    let control = folder(&workshop, &job, Stage::Retrieve, Some(Split::Test));
    // As if the last worker had died between its part and its record.
    let last = std::fs::read_dir(control.join("done")).unwrap().flatten().map(|e| e.path()).max().unwrap();
    std::fs::remove_file(last).unwrap();
    for table in ["candidates", "target_ranks"] {
        let digest = job.artifact(Stage::Retrieve, Some(Split::Test)).digest;
        std::fs::remove_file(root.join("tables").join(table).join(digest.as_str()).join("_SUCCESS")).unwrap();
    }
    std::fs::write(root.join("_control/v1/staging/object-torn"), "torn").unwrap();

    let day = json(&at_root(&workshop, &["gc", "--json"]).succeeded());
    assert_eq!(day["objects"], 0, "what is younger than a day stays: {day:#}");
    let gone = json(&at_root(&workshop, &["gc", "--json", "--older-than", "0s"]).succeeded());
    let kinds: Vec<&str> = gone["removed"].as_array().unwrap().iter().map(|r| r["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["attempt", "scratch"], "{gone:#}");
    let again = json(&at_root(&workshop, &["gc", "--json", "--older-than", "0s"]).succeeded());
    assert_eq!(again["objects"], 0, "{again:#}");

    let (_, job) = finish(&workshop, &[]);
    let anew: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(Split::Test));
    assert_eq!(anew, rows);
    let wrong = at_root(&workshop, &["gc", "--older-than", "soon"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("for example 24h"), "{}", wrong.stderr);
}

#[test]
fn a_job_that_runs_is_not_removed() {
    let workshop = Workshop::open();
    let long = ["--set", r#"stages=["prepare","train_retriever"]"#, "--set", "retriever.max_epochs=600"];
    let run = workshop.start("root", &[&long[..], &["--set", "retriever.patience=100000"]].concat());
    let root = workshop.path("root");
    let started = std::time::Instant::now();
    while !holds(&root, "stages.json") {
        assert!(started.elapsed().as_secs() < 60, "the job was not submitted in a minute");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let jobs = std::fs::read_dir(root.join("_control/v1/jobs")).unwrap().flatten();
    let job = jobs.map(|e| e.file_name().into_string().unwrap()).next().unwrap();
    let refused = at_root(&workshop, &["rm", &job]);
    assert!(refused.code == Some(75) && refused.stderr.contains("is wanted"), "{}", refused.stderr);
    let _ = at_root(&workshop, &["gc", "--older-than", "0s"]).succeeded();
    let ended = wait(run);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(holds(&root.join("models"), "_SUCCESS"));
}
