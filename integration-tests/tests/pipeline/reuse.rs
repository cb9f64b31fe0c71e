//! Nothing is done twice: the same job again, and a job that differs in one key.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use data::job::{Split, Stage};
use data::tables::{CandidateRow, HistoryRow};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use mllm4rec_integration_tests::shop;

/// Stages that need no language model.
const WITHOUT_RANKER: &str = r#"stages=["prepare","caption","train_retriever","retrieve","evaluate"]"#;

#[test]
fn the_same_job_again_has_nothing_to_do() {
    let workshop = Workshop::open();
    let job = workshop.finish("root", &["--set", WITHOUT_RANKER]);
    let before = commits(&workshop.path("root"));
    let again = workshop.run("root", &["--set", WITHOUT_RANKER]).succeeded();
    println!("the same job again took {:?}", again.took);
    assert!(again.stdout.contains("everything is done"), "{}", again.stdout);
    assert!(again.took < Duration::from_secs(5), "took {:?}", again.took);
    assert_eq!(commits(&workshop.path("root")), before);
    assert_eq!(job.stages().len(), 6);
}

#[test]
fn one_key_runs_again_only_what_depends_on_it() {
    let workshop = Workshop::open();
    let job = workshop.finish("root", &["--set", WITHOUT_RANKER]);
    let before = commits(&workshop.path("root"));
    let other = workshop.finish("root", &["--set", WITHOUT_RANKER, "--set", "retriever.candidates=5"]);
    let after = commits(&workshop.path("root"));
    for (path, bytes) in &before {
        assert_eq!(after.get(path), Some(bytes), "{path} was written again");
    }
    for stage in [Stage::Prepare, Stage::Caption, Stage::TrainRetriever] {
        assert_eq!(job.artifact(stage, None), other.artifact(stage, None));
    }
    let mut fresh: Vec<&str> =
        after.keys().filter(|p| !before.contains_key(*p)).map(|p| p.split('/').next().unwrap()).collect();
    fresh.dedup();
    assert_eq!(fresh, ["evaluate", "retrieve"]);
    let rows: Vec<CandidateRow> = other.rows(Stage::Retrieve, Some(Split::Test));
    assert!(rows.iter().all(|r| r.items.len() == 5));
}

/// A user gets all unseen items if there are fewer than K.
#[test]
fn small_catalogues_give_short_lists() {
    let workshop = Workshop::open();
    let sets = ["--set", WITHOUT_RANKER, "--set", "retriever.candidates=60", "--set", r#"splits=["test","all"]"#];
    let job = workshop.finish("root", &sets);
    let histories: Vec<HistoryRow> = job.rows(Stage::Prepare, None);
    let test: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(Split::Test));
    let all: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(Split::All));
    for ((history, test), all) in histories.iter().zip(&test).zip(&all) {
        assert_eq!(test.items.len(), shop::ITEMS - history.items.len() + 1, "user {}", history.user_id);
        assert_eq!(all.items.len(), shop::ITEMS - history.items.len(), "user {}", history.user_id);
        assert!(all.items.iter().all(|i| !history.items.contains(i)), "user {} gets what it knows", history.user_id);
    }
}

/// Interactions in a table of the user's own, through the same stages.
#[test]
fn own_tables_are_read_by_column_names() {
    let workshop = Workshop::open();
    let path = shop::write_table(&workshop.path("table"));
    let dataset = format!(
        "dataset={{format='table',path={path:?},min_interactions_per_user=1,min_interactions_per_item=2,shard_users=50,\
         columns={{user='customer',item='article',time='when',title='name'}}}}"
    );
    let job: JobOutputs = workshop.finish("root", &["--set", WITHOUT_RANKER, "--set", &dataset]);
    let histories: Vec<HistoryRow> = job.rows(Stage::Prepare, None);
    assert_eq!(histories.len(), shop::USERS);
    assert!(histories.iter().all(|h| h.user_id.starts_with('c') && h.items[0].starts_with('a')));
}

/// Every commit record below a root, by its path from the stage on.
fn commits(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let artifacts = root.join("_control/v1/artifacts");
    let mut folders = vec![artifacts.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().unwrap().ends_with("done") {
                let name = path.strip_prefix(&artifacts).unwrap().display().to_string();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    assert!(!found.is_empty());
    found
}
