//! Every job file that we hand out is right, except for the one that is wrong on purpose.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use data::Error;
use data::job::Job;
use mllm4rec_integration_tests::program;

/// What is wrong with `wrong.toml`, all of it: where it stands, and what the message holds.
const WRONG: [(&str, &str); 11] = [
    ("wrong.toml:3: name: ", "`two words`, allowed are letters"),
    ("wrong.toml:4: stages: ", "`retrieve` needs `train_retriever`"),
    ("wrong.toml:7: output.root: ", "expected a string"),
    ("wrong.toml:10: limits.memory: ", "\"4GiB\""),
    ("wrong.toml:12: dataset.path: ", "is missing"),
    ("wrong.toml:13: dataset.format: ", "did you mean `movielens`?"),
    ("wrong.toml:14: dataset.min_rating: ", "expected a number"),
    ("wrong.toml:17: retriever.hiden: ", "did you mean `hidden`?"),
    ("wrong.toml:18: retriever.dropout: ", "allowed are 0 to 0.95"),
    ("wrong.toml:21: ranker.quantize: ", "quantize = \"none\""),
    ("wrong.toml:24: workers: ", "unknown key"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// Job files of the folder with their texts; other files there are not TOML.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push((
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(&path).unwrap(),
            ));
        }
    }
    files.sort();
    files
}

#[test]
fn every_job_file_parses() {
    let names: Vec<String> = files().into_iter().map(|(name, _)| name).collect();
    for known in ["beauty.toml", "movielens.toml", "score.toml", "table.toml", "wrong.toml"] {
        assert!(names.iter().any(|n| n == known), "{known} is not among {names:?}");
    }
    for (name, text) in files() {
        if name != "wrong.toml" {
            let job = Job::parse(&name, &text, &[]).unwrap_or_else(|e| panic!("{e}"));
            let again = Job::parse(&name, &job.to_toml(), &[]).unwrap();
            assert_eq!(again, job, "{name} does not survive being written and read");
        }
    }
}

#[test]
fn templates_that_job_files_name_are_there() {
    for (name, text) in files() {
        if let Ok(job) = Job::parse(&name, &text, &[]) {
            let template = &job.ranker.template;
            let root = folder().join("..");
            let there = template.is_empty() || root.join(template).is_file() || folder().join(template).is_file();
            assert!(there, "{name}: ranker.template = {template}");
        }
    }
}

/// What no file can say before it is used: where the dataset and the pictures are. All else of a run is checked, the
/// checkpoints included.
#[test]
fn job_files_are_valid_for_the_program() {
    let here = folder().join("..");
    for (name, text) in files().into_iter().filter(|(name, _)| name != "wrong.toml") {
        let mut command = std::process::Command::new(program::binary());
        command.current_dir(&here).args(["validate", &format!("configs/{name}")]);
        if text.contains("\nimages = ") {
            command.args(["--set", "captions.images=models"]);
        }
        let output = command.args(["--set", "dataset.path=somewhere"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[test]
fn all_mistakes_of_the_wrong_job_file_are_reported() {
    let text = std::fs::read_to_string(folder().join("wrong.toml")).unwrap();
    let Err(Error::Job(problems)) = Job::parse("wrong.toml", &text, &[]) else { panic!("wrong.toml is not wrong") };
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), WRONG.len(), "{found:#?}");
    for ((place, words), found) in WRONG.iter().zip(&found) {
        assert!(found.starts_with(place) && found.contains(words), "{found}: expected {place} … {words}");
    }
}
