//! A root in which everything before the scoring is done, for any number of shards and without a single row: what a
//! coordinator reads of a big job, written by hand.

use std::path::Path;

use coordinator::plan::{PlannedStage, plan};
use coordinator::{Earlier, InputFiles};
use data::artifact::{self, Attempt, Digest, Done, InputDigests, Output, PartRecord, Plan, SUCCESS, Stats};
use data::job::{Job, Stage};
use data::store::Store;
use data::tables::Table;

use crate::shop;

/// Users of every shard.
const USERS: u64 = 1000;

/// Prepares a root in a folder for a job that retrieves candidates in so many shards.
///
/// # Panics
/// If the folder cannot be written.
#[must_use]
pub async fn prepare(root: &Path, data: &Path, shards: u32) -> Job {
    shop::write(data);
    let text = format!(
        "schema_version = 1\nname = \"large\"\nstages = [\"prepare\", \"train_retriever\", \"retrieve\"]\n\
         splits = [\"test\"]\n[dataset]\nformat = \"movielens\"\npath = {data:?}\n[output]\nroot = {root:?}\n"
    );
    let job = Job::parse("large.toml", &text, &[]).expect("the job file is right");
    let mut known = InputDigests::forgetful();
    let files = InputFiles::of(&job, Earlier::default(), &mut known).await.expect("the dataset can be read");
    std::fs::create_dir_all(root).expect("the root can be made");
    let store = Store::open(&root.display().to_string()).expect("the root can be opened");
    for stage in plan(&job, &files).stages {
        match stage.artifact.stage {
            Stage::Prepare => {
                let parts = (0..shards).map(|shard| part(&stage, shard, shards)).collect();
                complete(&store, &stage, Output::Table(Table::Histories), parts).await;
            }
            Stage::TrainRetriever => complete(&store, &stage, Output::Model, Vec::new()).await,
            _ => {}
        }
    }
    job
}

/// The done records of an artifact, read as anybody would: one file after the other.
///
/// # Panics
/// If a record cannot be read.
#[must_use]
pub fn records(root: &Path, stage: &str) -> Vec<Done> {
    let artifacts = root.join("_control/v1/artifacts").join(stage);
    let folders = std::fs::read_dir(artifacts).expect("the stage was begun").map(|e| e.expect("it is there").path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.join("done")).expect("shards are done"));
    let text = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file.expect("it is there").path());
    files.map(|f| serde_json::from_slice(&text(f).expect("it can be read")).expect("it is a done record")).collect()
}

fn part(stage: &PlannedStage, shard: u32, shards: u32) -> PartRecord {
    let folder = stage.artifact.table_prefix(Table::Histories);
    let path = format!("{folder}/{}", data::tables::part_name(shard, shards));
    PartRecord { table: Table::Histories, path, rows: USERS, bytes: 1, sha256: Digest::of_bytes(&shard.to_le_bytes()) }
}

async fn complete(store: &Store, stage: &PlannedStage, output: Output, parts: Vec<PartRecord>) {
    let id = artifact::write_spec(store, &stage.spec).await.expect("the spec can be written");
    let plan = Plan { shards: 1, input_parts: Vec::new(), outputs: vec![output] };
    artifact::write_plan(store, &id, &plan).await.expect("the plan can be written");
    let attempt = Attempt { written_parts: parts, id: "by hand".into(), stats: Stats::default(), ..Attempt::default() };
    artifact::commit_shard(store, &id, &plan, attempt).await.expect("the shard can be committed");
    let success = format!("{}/{SUCCESS}", output.folder(&id));
    store.put(&success, Vec::new().into()).await.expect("the folder can be completed");
}
