//! What must be so at the end, whatever happened: read from the store, not asked of those who wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use data::artifact::{Digest, Done};
use data::job::{Split, Stage};
use data::tables::{CandidateRow, HistoryRow, RankingRow, Row, Table, TargetRankRow, decode_part_of};
use mllm4rec_integration_tests::outputs::JobOutputs;
use serde_json::Value;

/// The split that is scored.
pub(crate) const TEST: Option<Split> = Some(Split::Test);
/// The stages that have a shard for some users.
pub(crate) const SCORED: [Stage; 2] = [Stage::Retrieve, Stage::Rank];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/users_once.py");

/// The content of every part of the tables that hold scores.
#[derive(Debug, PartialEq)]
pub(crate) struct Scores {
    /// Digest of the rows by table and name of the part. Who made them and when is no content.
    pub(crate) parts: BTreeMap<String, Digest>,
}

/// The done records of scored shards: their bytes by stage and shard.
pub(crate) type Records = BTreeMap<(Stage, u32), Vec<u8>>;

impl Scores {
    /// Reads every part.
    pub(crate) fn of(root: &Path, outputs: &JobOutputs) -> Self {
        let mut parts = BTreeMap::new();
        read::<CandidateRow>(root, outputs, Stage::Retrieve, &mut parts);
        read::<TargetRankRow>(root, outputs, Stage::Retrieve, &mut parts);
        read::<RankingRow>(root, outputs, Stage::Rank, &mut parts);
        Self { parts }
    }

    /// Every user has one row in every table, in the order of the histories; so say our readers and, where there is one, DuckDB.
    pub(crate) fn hold_every_user_once(&self, root: &Path, outputs: &JobOutputs) {
        let ids = |rows: Vec<HistoryRow>| rows.into_iter().map(|row| row.user_id).collect::<Vec<_>>();
        let users = ids(outputs.rows(Stage::Prepare, None));
        let ranked: Vec<RankingRow> = outputs.rows(Stage::Rank, TEST);
        let retrieved: Vec<CandidateRow> = outputs.rows(Stage::Retrieve, TEST);
        assert!(ranked.iter().map(|row| &row.user_id).eq(&users), "a user is missing, twice there, or out of place");
        assert!(retrieved.iter().map(|row| &row.user_id).eq(&users), "a user is missing, twice there, or out of place");
        assert!(users.is_sorted_by(|a, b| a < b) && users.len() == crate::population::USERS);
        ask_duckdb(root, outputs, users.len());
    }
}

fn folder(root: &Path, outputs: &JobOutputs, table: Table, stage: Stage) -> std::path::PathBuf {
    root.join(outputs.artifact(stage, TEST).table_prefix(table))
}

fn read<R: Row + std::fmt::Debug>(
    root: &Path,
    outputs: &JobOutputs,
    stage: Stage,
    parts: &mut BTreeMap<String, Digest>,
) {
    let folder = folder(root, outputs, R::TABLE, stage);
    let mut complete = false;
    for entry in fs::read_dir(&folder).unwrap() {
        let (name, path) = (entry.as_ref().unwrap().file_name().into_string().unwrap(), entry.unwrap().path());
        if name == "_SUCCESS" {
            complete = true;
            continue;
        }
        let rows: Vec<R> = decode_part_of(&name, fs::read(&path).unwrap().into())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        parts.insert(format!("{}/{name}", R::TABLE.name()), Digest::of_bytes(format!("{rows:?}").as_bytes()));
    }
    assert!(complete, "{} has no _SUCCESS", folder.display());
}

/// The done records that are there.
pub(crate) fn records(root: &Path, outputs: &JobOutputs) -> Records {
    let mut records = Records::new();
    for stage in SCORED {
        let folder = root.join(format!("{}/done", outputs.artifact(stage, TEST).control_prefix()));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let shard = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            records.insert((stage, shard.expect("records are named by their shards")), fs::read(&path).unwrap());
        }
    }
    records
}

/// Every record names the parts that are there, byte for byte, and no part is there that none names.
pub(crate) fn records_describe_what_is_there(root: &Path, outputs: &JobOutputs) {
    let mut named: BTreeMap<String, Digest> = BTreeMap::new();
    for ((stage, shard), bytes) in records(root, outputs) {
        let done: Done = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(done.shard, shard);
        for part in done.parts {
            let there = Digest::of_bytes(&fs::read(root.join(&part.path)).unwrap());
            assert_eq!(there, part.sha256, "{stage} {shard}: {}", part.path);
            named.insert(part.path, part.sha256);
        }
    }
    let tables =
        [(Table::Candidates, Stage::Retrieve), (Table::TargetRanks, Stage::Retrieve), (Table::Rankings, Stage::Rank)];
    for (table, stage) in tables {
        for entry in fs::read_dir(folder(root, outputs, table, stage)).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(root).unwrap().display().to_string();
            assert!(below.ends_with("_SUCCESS") || named.contains_key(&below), "no record names {below}");
        }
    }
}

/// Lets a program that knows nothing of ours count users.
fn ask_duckdb(root: &Path, outputs: &JobOutputs, users: usize) {
    let Some(python) = std::env::var_os("MLLM4REC_PYTHON") else {
        println!("SKIPPED counting users with DuckDB: MLLM4REC_PYTHON names no Python that has it");
        return;
    };
    let histories = root.join(outputs.artifact(Stage::Prepare, None).table_prefix(Table::Histories));
    let scored =
        [(Table::Candidates, Stage::Retrieve), (Table::TargetRanks, Stage::Retrieve), (Table::Rankings, Stage::Rank)];
    let scored = scored.map(|(table, stage)| folder(root, outputs, table, stage));
    let output = Command::new(python).arg(SCRIPT).arg(histories).args(scored).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counted: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counted.len(), 3);
    for table in counted {
        assert_eq!(table, serde_json::json!({"rows": users, "users": users, "missing": 0, "strangers": 0}));
    }
}
