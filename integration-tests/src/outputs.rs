//! What a job left behind, read through the library.

use std::path::{Path, PathBuf};

use coordinator::records::{self, StageRecord};
use data::artifact::ArtifactId;
use data::job::{Split, Stage};
use data::store::Store;
use data::tables::{Row, Table, read_all};

/// The tables and models of one job.
#[derive(Clone, Debug)]
pub struct JobOutputs {
    root: PathBuf,
    store: Store,
    stages: Vec<StageRecord>,
}

impl JobOutputs {
    /// Opens a job under a root.
    ///
    /// # Panics
    /// If there is no such job.
    #[must_use]
    pub fn open(root: &Path, job: &str) -> Self {
        Self::of(Store::open(&root.display().to_string()).expect("the root can be opened"), job)
    }

    /// Opens a job in a store, which may be a bucket: it has no folders then.
    ///
    /// # Panics
    /// If there is no such job.
    #[must_use]
    pub fn of(store: Store, job: &str) -> Self {
        let stages = wait(records::stages(&store, job)).expect("the job has run");
        Self { root: store.folder().map(Path::to_owned).unwrap_or_default(), store, stages }
    }

    /// The stages of the job, each with its artifact.
    #[must_use]
    pub fn stages(&self) -> &[StageRecord] {
        &self.stages
    }

    /// The artifact of a stage.
    ///
    /// # Panics
    /// If the job has no such stage.
    #[must_use]
    pub fn artifact(&self, stage: Stage, split: Option<Split>) -> ArtifactId {
        let found = self.stages.iter().find(|s| s.is(stage, split));
        found.unwrap_or_else(|| panic!("the job has no stage {stage} for {split:?}")).artifact()
    }

    /// The folder of a table, as another program would open it.
    #[must_use]
    pub fn folder(&self, table: Table, stage: Stage, split: Option<Split>) -> PathBuf {
        self.root.join(self.artifact(stage, split).table_prefix(table))
    }

    /// The rows of a table.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn rows<R: Row>(&self, stage: Stage, split: Option<Split>) -> Vec<R> {
        let folder = self.artifact(stage, split).table_prefix(R::TABLE);
        wait(read_all(&self.store, &folder)).unwrap_or_else(|e| panic!("{}: {e}", R::TABLE.name()))
    }

    /// The bytes of a file of a model.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn model(&self, stage: Stage, file: &str) -> Vec<u8> {
        let path = self.root.join(self.artifact(stage, None).model_prefix()).join(file);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// Waits for a future in a test that has no runtime.
fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(future)
}
