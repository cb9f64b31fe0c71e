//! A training by a gang of real processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use data::job::Stage;
use mllm4rec_integration_tests::log::Log;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Ended, Workshop, wait};
use serde_json::Value;

use crate::cluster::{Cluster, Place};

/// The longest that a training may stand still.
const PATIENCE: Duration = Duration::from_secs(90);
const USERS: usize = 400;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    Retriever,
    /// A retriever whose items are shared out.
    SharedItems,
    Ranker,
}

impl What {
    fn stage(self) -> Stage {
        if self == Self::Ranker { Stage::TrainRanker } else { Stage::TrainRetriever }
    }

    fn file(self) -> &'static str {
        if self == Self::Ranker { "adapter_model.safetensors" } else { "model.safetensors" }
    }

    /// The model of one worker whom nobody disturbs.
    pub(crate) fn undisturbed(self) -> &'static [u8] {
        static MODELS: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
        MODELS[self as usize].get_or_init(|| {
            let workshop = Workshop::open();
            let (job, root) = (write(&workshop, self).display().to_string(), workshop.path("root"));
            let args = ["run", &job, "--root", &root.display().to_string(), "--workers", "1", "--json"];
            let ended = Ended::of(wait(start(&workshop, &args)), Instant::now()).succeeded();
            let said: Value = serde_json::from_str(&ended.stdout).unwrap();
            JobOutputs::open(&root, said["job"].as_str().unwrap()).model(self.stage(), self.file())
        })
    }
}

fn start(workshop: &Workshop, args: &[&str]) -> Child {
    workshop.command(args).spawn().unwrap()
}

/// A training and its cluster.
pub(crate) struct Training {
    pub(crate) cluster: Cluster,
    pub(crate) job: String,
    /// Where faults are laid down.
    pub(crate) faults: PathBuf,
    what: What,
}

impl Training {
    /// Submits it to a coordinator and so many workers.
    pub(crate) fn begin(what: What, workers: usize) -> Self {
        let workshop = Workshop::open();
        let (root, faults, job) = (workshop.path("root"), workshop.path("faults"), write(&workshop, what));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&faults).unwrap();
        let mut cluster = Cluster::at(workshop, Place::Folder, root);
        cluster.coordinator_args = ["--step-patience", "1200ms"].map(str::to_owned).into();
        let variable = ("MLLM4REC_FAULTS".to_owned(), faults.display().to_string());
        cluster.environment.get_mut("worker").unwrap().push(variable);
        cluster.start(workers);
        let job = cluster.submit_file(&job, &[]);
        Self { cluster, job, faults, what }
    }

    /// Steps done, as the coordinator says, and the state of the job.
    pub(crate) fn stands(&self) -> Option<(u64, String)> {
        let status = self.cluster.status(&self.job)?;
        let stages = status["stages"].as_array()?;
        let stage = stages.iter().find(|stage| stage["stage"] == self.what.stage().as_str())?;
        Some((stage["done"].as_u64()?, status["state"].as_str()?.to_owned()))
    }

    /// Looks until something is so of the steps done, or the job ends; starts again who ended meanwhile. Returns the steps, or nothing
    /// if the job has ended.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(u64) -> bool) -> Option<u64> {
        let began = Instant::now();
        loop {
            self.cluster.revive();
            if let Some((step, state)) = self.stands() {
                if state != "running" {
                    assert_eq!(state, "succeeded", "{:#}", self.cluster.status(&self.job).unwrap());
                    return None;
                }
                if is_so(step) {
                    return Some(step);
                }
            }
            assert!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}\n{}", self.cluster.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end and compares the model with that of an undisturbed worker.
    pub(crate) fn ends_as_if_nothing_had_happened(&mut self) {
        self.until("the training ends", |_| false);
        let outputs = JobOutputs::open(self.cluster.root(), &self.job);
        let model = outputs.model(self.what.stage(), self.what.file());
        assert!(model == self.what.undisturbed(), "the model differs from that of an undisturbed worker");
    }
}

/// Writes data and a job file for some seconds of training. Returns the file.
fn write(workshop: &Workshop, what: What) -> PathBuf {
    Log::of_users(USERS).write(&workshop.path("log"));
    let stages = match what {
        What::Retriever | What::SharedItems => r#"["prepare", "train_retriever"]"#,
        What::Ranker => r#"["prepare", "caption", "train_retriever", "retrieve", "train_ranker"]"#,
    };
    let epochs = if what == What::Ranker { 1 } else { 30 };
    let share_items_from = if what == What::SharedItems { 1 } else { 1_000_000 };
    let text = format!(
        r#"schema_version = 1
name = "gang"
stages = {stages}
[dataset]
format = "movielens"
path = {data:?}
min_interactions_per_user = 1
min_interactions_per_item = 2
[retriever]
hidden = 32
layers = 2
dropout = 0.1
max_length = 30
batch_size = 32
max_epochs = {epochs}
validate_every = 20
patience = 1000
candidates = 12
slices = 8
share_items_from = {share_items_from}
[ranker]
base = {base:?}
role = "You pick films."
history = 6
negatives = "random"
batch_size = 8
max_steps = 60
validate_every = 20
patience = 1000
slices = 8
"#,
        data = workshop.path("log"),
        base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base").canonicalize().unwrap(),
    );
    let path = workshop.path("gang.toml");
    fs::write(&path, text).unwrap();
    path
}
