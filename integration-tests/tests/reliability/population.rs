//! Whom the clusters score, with which models, and what an undisturbed run says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use coordinator::records::StageRecord;
use data::job::Stage;
use mllm4rec_integration_tests::log::Log;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::binary;
use serde_json::Value;

use crate::oracle::{SCORED, Scores, TEST};

/// Users: enough for a shard of each stage that takes long enough to be hit, and not longer.
pub(crate) const USERS: usize = SHARDS as usize * SHARD_USERS;
/// Shards.
pub(crate) const SHARDS: u32 = 200;
/// Users of a shard.
pub(crate) const SHARD_USERS: usize = 8;

/// A population that one machine has scored without trouble.
pub(crate) struct Population {
    folder: PathBuf,
    outputs: JobOutputs,
    pub(crate) scores: Scores,
}

impl Population {
    /// The one of all tests, made by the first of them.
    pub(crate) fn get() -> &'static Self {
        static POPULATION: OnceLock<Population> = OnceLock::new();
        POPULATION.get_or_init(Self::make)
    }

    fn make() -> Self {
        // It lasts as long as the process, so that no temporary folder of this one would be removed: the next one does it.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reliability");
        let _ = fs::remove_dir_all(&folder);
        Log::of_users(USERS).write(&folder.join("data"));
        let (job, root) = (folder.join("job.toml"), folder.join("root"));
        fs::write(&job, job_file(&folder.join("data"))).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(&job).args(sets(&[])).arg("--root").arg(&root).args(["--workers", "2", "--json"]);
        command.env("XDG_CACHE_HOME", folder.join("cache")).env_remove("RUST_LOG").stdin(Stdio::null());
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let outputs = JobOutputs::open(&root, said["job"].as_str().unwrap());
        let scores = Scores::of(&root, &outputs);
        scores.hold_every_user_once(&root, &outputs);
        assert_eq!(scores.parts.len(), 3 * SHARDS as usize, "candidates, ranks of targets, rankings");
        Self { folder, outputs, scores }
    }

    /// The job file.
    pub(crate) fn job(&self) -> PathBuf {
        self.folder.join("job.toml")
    }

    /// Where the record of a scored shard is.
    pub(crate) fn record(&self, stage: Stage, shard: usize) -> String {
        format!("{}/done/{shard:05}.json", self.outputs.artifact(stage, TEST).control_prefix())
    }

    /// Lays out a root as it was before anybody was scored: prepared, and with all models. The shards from `undone` on are
    /// done; the job itself is not known there.
    pub(crate) fn unscored(&self, to: &Path, undone: u32) {
        // Other splits are scored for training.
        let scored = |stage: &&StageRecord| {
            (SCORED.contains(&stage.stage) && stage.split == TEST) || stage.stage == Stage::Evaluate
        };
        let digests: Vec<String> = self.outputs.stages().iter().filter(scored).map(|s| s.digest.to_string()).collect();
        copy(&self.folder.join("root"), to, &|below| {
            let forgotten =
                ["_control/v1/jobs", "_control/v1/leader", "_control/v1/run.lock", "_control/v1/staging", "jobs"];
            if forgotten.iter().any(|path| below == Path::new(path)) {
                return false;
            }
            let (path, name) = (below.to_str().unwrap(), below.file_name().unwrap().to_str().unwrap());
            if !digests.iter().any(|digest| path.contains(digest.as_str())) || name.ends_with("spec.json") {
                return true;
            }
            let shard = name.trim_start_matches("part-").split(['.', '-']).next().and_then(|n| n.parse::<u32>().ok());
            let evaluated = path.contains("evaluate") || path.contains("metrics");
            !evaluated && name != "_SUCCESS" && shard.is_none_or(|shard| shard >= undone)
        });
    }
}

/// Copies a folder, without what is not wanted. What is there twice need not lie there twice: nothing writes into a file.
fn copy(from: &Path, to: &Path, wanted: &impl Fn(&Path) -> bool) {
    fn go(root: &Path, below: &Path, to: &Path, wanted: &impl Fn(&Path) -> bool) {
        fs::create_dir_all(to.join(below)).unwrap();
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let below = below.join(entry.unwrap().file_name());
            let (source, target) = (root.join(&below), to.join(&below));
            if !wanted(&below) {
                continue;
            }
            if source.is_dir() {
                go(root, &below, to, wanted);
            } else if fs::hard_link(&source, &target).is_err() {
                fs::copy(&source, &target).unwrap();
            }
        }
    }
    go(from, Path::new(""), to, wanted);
}

fn job_file(data: &Path) -> String {
    format!(
        r#"schema_version = 1
name = "population"
splits = ["test"]
[dataset]
format = "movielens"
path = {data:?}
min_interactions_per_user = 1
min_interactions_per_item = 2
shard_users = {SHARD_USERS}
[retriever]
hidden = 16
layers = 1
dropout = 0.1
max_length = 20
batch_size = 16
max_epochs = 1
candidates = 20
[ranker]
base = {base:?}
role = "You pick films."
history = 12
negatives = "random"
batch_size = 4
max_steps = 2
"#,
        base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base").canonicalize().unwrap(),
    )
}

/// Overrides as arguments.
pub(crate) fn sets(more: &[&str]) -> Vec<String> {
    more.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
}
