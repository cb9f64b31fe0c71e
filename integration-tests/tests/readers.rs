//! The tables as other programs see them: DuckDB, Polars and pyarrow open the folders that a job wrote.
//!
//! Needs a Python with these three, named by `MLLM4REC_PYTHON`; `cargo xtask check` makes one. Says so and passes without.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;

use data::job::{Split, Stage};
use data::tables::{
    CandidateRow, CaptionRow, HistoryRow, ItemRow, MetricRow, RankingRow, RejectedRow, Row, Table, TargetRankRow,
};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/read_tables.py");

/// The lowest and the highest id say that values, not only their number, came through.
fn expected<R: Row>(job: &JobOutputs, stage: Stage, split: Option<Split>, id: fn(&R) -> String) -> (String, Value) {
    let rows: Vec<R> = job.rows(stage, split);
    let ids: Vec<String> = rows.iter().map(id).collect();
    let columns: Vec<String> = R::schema().fields().iter().map(|f| f.name().clone()).collect();
    let folder = job.folder(R::TABLE, stage, split).display().to_string();
    (
        folder,
        json!({"rows": rows.len(), "columns": columns, "id": columns[0], "first": ids.iter().min(), "last": ids.iter().max()}),
    )
}

#[test]
fn other_programs_read_what_we_read() {
    let Some(python) = std::env::var_os("MLLM4REC_PYTHON") else {
        println!(
            "skipped: MLLM4REC_PYTHON names no Python with duckdb, polars and pyarrow; `cargo xtask check` makes one"
        );
        return;
    };
    let workshop = Workshop::open();
    let job = workshop.finish("root", &["--workers", "2"]);
    let (test, train) = (Some(Split::Test), Some(Split::Train));
    let tables: BTreeMap<String, Value> = [
        expected::<ItemRow>(&job, Stage::Prepare, None, |r| r.item_id.clone()),
        expected::<HistoryRow>(&job, Stage::Prepare, None, |r| r.user_id.clone()),
        expected::<RejectedRow>(&job, Stage::Prepare, None, |r| r.file.clone()),
        expected::<CaptionRow>(&job, Stage::Caption, None, |r| r.item_id.clone()),
        expected::<CandidateRow>(&job, Stage::Retrieve, test, |r| r.user_id.clone()),
        expected::<CandidateRow>(&job, Stage::Retrieve, train, |r| r.user_id.clone()),
        expected::<TargetRankRow>(&job, Stage::Retrieve, test, |r| r.user_id.clone()),
        expected::<RankingRow>(&job, Stage::Rank, test, |r| r.user_id.clone()),
        expected::<MetricRow>(&job, Stage::Evaluate, None, |r| r.split.to_string()),
    ]
    .into();
    // Of the pictures table, which this job has not, all columns have the types of others.
    let made = Table::ALL.iter().filter(|t| **t != Table::Pictures);
    let covered: Vec<bool> = made.map(|t| tables.keys().any(|f| f.contains(&format!("/{}/", t.name())))).collect();
    assert!(covered.iter().all(|c| *c), "a table is not read by this test: {covered:?}");

    let folders: Vec<&String> = tables.keys().collect();
    let output = Command::new(&python).arg(SCRIPT).args(&folders).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    for reader in ["duckdb", "polars", "pyarrow"] {
        for (folder, expected) in &tables {
            assert_eq!(&read[reader][folder], expected, "{reader} reads {folder} differently");
        }
    }
    println!("duckdb, polars and pyarrow read {} folders like we do", tables.len());
}
