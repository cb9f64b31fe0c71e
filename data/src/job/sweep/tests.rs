#![allow(clippy::unwrap_used)]

use serde_json::json;

use crate::Error;
use crate::job::{Job, ModelSection};

const SHOP: &str = r#"
schema_version = 1
name = "shop"
[dataset]
path = "/data"
[retriever]
dropout = 0.5
[ranker]
base = "/models/base"
[sweep]
"#;

fn job(grid: &str) -> Job {
    Job::parse("job.toml", &format!("{SHOP}{grid}"), &[]).unwrap()
}

fn problems(grid: &str, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    match Job::parse("job.toml", &format!("{SHOP}{grid}"), &sets) {
        Err(Error::Job(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(grid: &str, sets: &[&str], expected: &str) {
    let found = problems(grid, sets);
    assert!(found.iter().any(|problem| problem.contains(expected)), "no `{expected}` in {found:#?}");
}

#[test]
fn every_combination_is_a_trial_and_the_first_key_changes_slowest() {
    let job = job("\"retriever.weight_decay\" = [0, 0.01]\n\"retriever.dropout\" = [0.1, 0.2]");
    let trials = job.trials(ModelSection::Retriever);
    let labels: Vec<&str> = trials.iter().map(|trial| trial.label.as_str()).collect();
    let expected = [
        "dropout=0.1 weight_decay=0",
        "dropout=0.1 weight_decay=0.01",
        "dropout=0.2 weight_decay=0",
        "dropout=0.2 weight_decay=0.01",
    ];
    assert_eq!(labels, expected);
    assert_eq!(job.sweep.trials(ModelSection::Retriever), 4);
    assert!(job.trials(ModelSection::Ranker).is_empty());
    assert_eq!(json!(trials[0].settings), json!({"retriever.dropout": 0.1, "retriever.weight_decay": 0.0}));
    assert!((trials[3].job.retriever.dropout - 0.2).abs() < 1e-12);
    assert!(trials[3].job.sweep.is_empty(), "a trial tries nothing itself");
}

#[test]
fn a_trial_is_the_job_that_somebody_would_write_for_it() {
    let swept = job("\"retriever.dropout\" = [0.1, 0.2]\n\"ranker.lora.rank\" = [4, 8]");
    let sets = ["retriever.dropout=0.2".to_owned()];
    let alone = Job::parse("job.toml", SHOP.trim_end().trim_end_matches("[sweep]"), &sets).unwrap();
    assert_eq!(swept.trials(ModelSection::Retriever)[1].job, alone);
    let trial = &swept.trials(ModelSection::Ranker)[0];
    assert_eq!((trial.label.as_str(), trial.job.ranker.lora.rank), ("lora.rank=4", 4));
    assert_eq!(swept.with_settings(&trial.settings).unwrap(), trial.job);
}

#[test]
fn a_grid_survives_the_round_trip_and_is_written_with_quotes_or_without() {
    let quoted = job("\"retriever.dropout\" = [0.1, 0.2]");
    assert_eq!(Job::parse("again", &quoted.to_toml(), &[]).unwrap(), quoted);
    assert_eq!(job("retriever.dropout = [0.1, 0.2]").sweep, quoted.sweep);
    let sets = ["sweep.retriever.dropout=[0.1, 0.2]".to_owned()];
    let text = SHOP.trim_end().trim_end_matches("[sweep]");
    assert_eq!(Job::parse("job.toml", text, &sets).unwrap().sweep, quoted.sweep);
}

#[test]
fn values_are_checked_as_those_of_the_job_are() {
    let found = problems("\"retriever.dropout\" = [0.1, 1.5, \"much\"]\n\"retriever.layers\" = [0]", &[]);
    assert_eq!(
        found,
        [
            "job.toml:11: sweep.retriever.dropout: value 2 is 1.5, allowed are 0 to 0.95",
            "job.toml:11: sweep.retriever.dropout: value 3 is the string \"much\", expected a number",
            "job.toml:12: sweep.retriever.layers: value 1 is 0, allowed are 1 to 64",
        ]
    );
    refused("\"ranker.negatives\" = [\"randm\"]", &[], "did you mean `random`?");
}

#[test]
fn keys_that_are_not_there_or_change_no_training_are_refused() {
    refused("\"retriever.drop_out\" = [0.1]", &[], "did you mean `retriever.dropout`?");
    refused("\"dataset.path\" = [\"a\"]", &[], "names keys of [retriever] and [ranker] in full");
    refused("\"retriever.candidates\" = [10, 20]", &[], "changes nothing that the retriever learns");
    refused("\"ranker.micro_batch_tokens\" = [10, 20]", &[], "changes nothing that the ranker learns");
    refused("\"ranker.base\" = [\"a\", \"b\"]", &[], "submit one job for each checkpoint");
    refused("\"retriever.validation_excludes_history\" = [true, false]", &[], "could not be compared");
    let only = "stages=[\"prepare\", \"train_retriever\"]";
    refused("\"ranker.lora.rank\" = [4]", &[only], "`train_ranker` is not in `stages`");
}

#[test]
fn lists_that_say_nothing_are_refused() {
    refused("", &[], "sweep: is empty");
    refused("\"retriever.dropout\" = []", &[], "is an empty list");
    refused("\"retriever.dropout\" = 0.1", &[], "expected a list of values to try");
    refused("\"retriever.weight_decay\" = [0.0, 0.01, 0]", &[], "value 3 is 0, as value 1 is");
    refused("\"retriever.layers\" = [1]\nretriever.layers = [2]", &[], "sweep.retriever.layers: is there twice");
}

#[test]
fn a_key_is_overridden_however_it_is_written() {
    for grid in ["\"retriever.layers\" = [1, 2]", "retriever.layers = [1, 2]", "[sweep.retriever]\nlayers = [1, 2]"] {
        let set = ["sweep.retriever.layers=[3]".to_owned()];
        let sweep = Job::parse("job.toml", &format!("{SHOP}{grid}"), &set).unwrap().sweep;
        assert_eq!(sweep.trials(ModelSection::Retriever), 1, "{grid}");
    }
}

#[test]
fn no_more_than_256_trials_are_taken() {
    let list = |n: u32| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let grid = |n: u32| format!("\"retriever.layers\" = [{}]\n\"retriever.patience\" = [{}]", list(16), list(n));
    assert_eq!(job(&grid(16)).sweep.trials(ModelSection::Retriever), 256);
    refused(&grid(17), &[], "has 272 trials, allowed are 256");
    let both = format!("{}\n\"ranker.patience\" = [1]", grid(16));
    refused(&both, &[], "has 257 trials");
}

#[test]
fn settings_that_do_not_go_together_are_found_before_anything_runs() {
    let grid = "\"ranker.trainable\" = [\"lora\", \"full\"]\n\"ranker.quantize\" = [\"nf4\", \"none\"]";
    let found = problems(grid, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("the trial of ranker.quantize = \"nf4\", ranker.trainable = \"full\""), "{found:?}");
    let labels = "\"ranker.labels\" = [\"letters\", \"numbers\"]";
    refused(labels, &["retriever.candidates=40", "ranker.labels=numbers"], "has labels for 26");
}

#[test]
fn what_all_trials_share_cannot_be_swept_apart() {
    let steps = "\"ranker.max_steps\" = [10, 20]";
    refused(steps, &["ranker.negatives=mixed"], "decides which prefixes candidates are retrieved for");
    let both = format!("{steps}\n\"ranker.negatives\" = [\"random\", \"mixed\"]");
    refused(&both, &[], "decides which prefixes candidates are retrieved for");
    assert_eq!(job(steps).trials(ModelSection::Ranker).len(), 2);
}

#[test]
fn a_gate_in_front_of_each_trial_is_refused() {
    refused("\"ranker.learning_rate\" = [1e-4, 1e-5]", &["ranker.require_lift=true"], "asked of every trial");
}
