//! Folders that somebody else wrote into: found out, named, never ranked over.

use std::path::PathBuf;

use data::job::Stage;
use data::tables::{Table, part_name};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Ended, Workshop};

const UP_TO_RETRIEVE: &str = r#"stages=["prepare","train_retriever","retrieve"]"#;

/// A finished job; another one that reads the same histories.
struct Finished {
    workshop: Workshop,
    job: JobOutputs,
}

impl Finished {
    fn new() -> Self {
        let workshop = Workshop::open();
        let job = workshop.finish("root", &["--set", UP_TO_RETRIEVE]);
        Self { workshop, job }
    }

    fn part(&self, table: Table, index: u32, of: u32) -> PathBuf {
        self.job.folder(table, Stage::Prepare, None).join(part_name(index, of))
    }

    /// Retrieves again, with other candidates, from the folders as they are now.
    fn retrieve(&self) -> Ended {
        self.workshop.run("root", &["--set", UP_TO_RETRIEVE, "--set", "retriever.candidates=5"])
    }
}

#[test]
fn a_damaged_part_is_named() {
    let finished = Finished::new();
    std::fs::write(finished.part(Table::Histories, 3, 8), b"not a table").unwrap();
    let ended = finished.retrieve();
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stderr.contains("part-00003-of-00008.parquet"), "{}", ended.stderr);
    assert!(ended.stderr.contains("`histories`"), "{}", ended.stderr);
}

#[test]
fn a_part_of_another_table_is_named_with_its_column() {
    let finished = Finished::new();
    std::fs::copy(finished.part(Table::Items, 0, 1), finished.part(Table::Histories, 0, 8)).unwrap();
    let ended = finished.retrieve();
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stderr.contains("part-00000-of-00008.parquet: column `user_id`"), "{}", ended.stderr);
}

#[test]
fn a_missing_part_is_named() {
    let finished = Finished::new();
    std::fs::remove_file(finished.part(Table::Histories, 7, 8)).unwrap();
    let ended = finished.retrieve();
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stderr.contains("lacks part-00007-of-00008.parquet"), "{}", ended.stderr);
}
