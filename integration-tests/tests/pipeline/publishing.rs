//! Finished tables are where the user wants them, whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::job::{Split, Stage};
use data::tables::Table;
use mllm4rec_integration_tests::program::{Ended, Workshop};
use serde_json::Value;

const WITHOUT_RANKER: &str = r#"stages=["prepare","caption","train_retriever","retrieve","evaluate"]"#;

fn run(workshop: &Workshop, place: &str, more: &[&str]) -> Ended {
    let publish = format!("output.publish={}", workshop.path("shop").join(place).display());
    workshop.run("root", &[&["--set", WITHOUT_RANKER, "--set", &publish], more].concat())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let read = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
    entries.map(|e| read(e.unwrap().path())).collect()
}

#[test]
fn every_split_is_published_and_the_report_says_where() {
    let workshop = Workshop::open();
    let ended = run(&workshop, "{name}/{split}", &["--json"]).succeeded();
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let published = said["report"]["published"].as_array().unwrap();
    assert_eq!(published.len(), 2, "{published:?}");
    let job =
        mllm4rec_integration_tests::outputs::JobOutputs::open(&workshop.path("root"), said["job"].as_str().unwrap());
    for split in [Split::Validation, Split::Test] {
        let place = workshop.path("shop/small").join(split.as_str());
        assert_eq!(files(&place), files(&job.folder(Table::Candidates, Stage::Retrieve, Some(split))));
        let rows: u64 = job.rows::<data::tables::CandidateRow>(Stage::Retrieve, Some(split)).len() as u64;
        let told = published.iter().find(|p| p["split"] == split.as_str()).unwrap();
        assert_eq!((told["rows"].as_u64(), told["folder"].as_str()), (Some(rows), place.to_str()));
    }
    let again = run(&workshop, "{name}/{split}", &[]).succeeded();
    assert!(again.stdout.contains("published candidates (test)"), "{}", again.stdout);
}

#[test]
fn a_copy_that_was_cut_off_is_completed() {
    let workshop = Workshop::open();
    let _ = run(&workshop, "recs", &["--set", r#"splits=["test"]"#]).succeeded();
    let place = workshop.path("shop/recs");
    let whole = files(&place);
    assert!(whole.len() > 2 && whole.contains_key("_SUCCESS"), "{:?}", whole.keys());
    // What a process leaves that is killed between two parts, and in the middle of one.
    let last = whole.keys().max().unwrap();
    for name in [last, "_SUCCESS"] {
        std::fs::remove_file(place.join(name)).unwrap();
    }
    std::fs::write(place.join(format!("{last}#4711000001")), "torn").unwrap();
    let _ = run(&workshop, "recs", &["--set", r#"splits=["test"]"#]).succeeded();
    assert_eq!(files(&place), whole);
}

#[test]
fn a_place_that_holds_something_else_is_refused_before_anything_runs() {
    let workshop = Workshop::open();
    let place = workshop.path("shop/recs");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("notes.txt"), "mine").unwrap();
    let refused = run(&workshop, "recs", &["--set", r#"splits=["test"]"#]);
    assert!(refused.code == Some(65) && refused.stderr.contains("recs/notes.txt"), "{}", refused.stderr);
    assert!(!workshop.path("root/tables").exists(), "nothing was computed");
    assert_eq!(files(&place).len(), 1);
    let wrong = run(&workshop, "{day}", &[]);
    assert!(wrong.code == Some(64) && wrong.stderr.contains("`{day}` is not a placeholder"), "{}", wrong.stderr);
}
