//! The query engine: datafusion with the job's memory, spilling to the job's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use url::Url;

use super::spool::SpoolFile;
use crate::{Error, Result};

/// The share of `limits.memory` that operators may reserve, in percent; the rest is for what does not: readers, writers, one
/// shard of histories.
const POOL_PERCENT: u64 = 75;

/// Memory below which another thread does more harm than good: every thread of a sort needs its own part.
const MEMORY_PER_THREAD: u64 = 64 << 20;

/// Runs plans over Parquet files of one folder.
pub(super) struct Engine {
    context: SessionContext,
    folder: PathBuf,
    memory_bytes: u64,
}

impl Engine {
    /// An engine that keeps its files in `folder` and its memory within `memory_bytes`.
    pub(super) fn new(folder: &Path, memory_bytes: u64) -> Result<Self> {
        let pool_bytes = usize::try_from(memory_bytes / 100 * POOL_PERCENT).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = usize::try_from(memory_bytes / MEMORY_PER_THREAD).unwrap_or(usize::MAX).clamp(1, cores);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![folder.to_path_buf()]))
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(pool_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|e| Error::Engine { step: "starting", source: Box::new(e) })?;
        let batch_rows = if pool_bytes < 64 << 20 { 1024 } else { 8192 };
        let mut config = SessionConfig::new().with_target_partitions(threads).with_batch_size(batch_rows);
        let options = config.options_mut();
        options.execution.parquet.schema_force_view_types = false;
        options.execution.sort_spill_reservation_bytes = (pool_bytes / (8 * threads)).min(10 << 20);
        let context = SessionContext::new_with_config_rt(config, runtime);
        Ok(Self { context, folder: folder.to_path_buf(), memory_bytes })
    }

    /// Opens a spooled file as a relation.
    pub(super) async fn open(&self, name: &str) -> Result<DataFrame, DataFusionError> {
        let path = self.path(name);
        // By URL, since a plain path is read as a pattern: a `*` in the name of a folder is not one.
        let url = Url::from_file_path(&path)
            .map_err(|()| DataFusionError::Plan(format!("{} is not an absolute path", path.display())))?;
        self.context.read_parquet(url.as_str(), ParquetReadOptions::default()).await
    }

    /// Runs a plan into a spooled file and opens that: later plans read it instead of computing it again.
    ///
    /// Also says how many rows it has.
    pub(super) async fn spool(&self, plan: DataFrame, name: &str) -> Result<(DataFrame, u64), DataFusionError> {
        let schema = Arc::clone(plan.schema().inner());
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let mut file = SpoolFile::create(self.path(name), schema).map_err(external)?;
        let mut batches = plan.execute_stream().await?;
        while let Some(batch) = batches.next().await {
            file.write(&batch?).map_err(external)?;
        }
        let rows = file.finish().map_err(external)?;
        Ok((self.open(name).await?, rows))
    }

    /// Removes a spooled file that no plan reads any more, if it is there.
    pub(super) fn remove(&self, name: &str) {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(name, %error, "a spooled file could not be removed");
            }
            _ => {}
        }
    }

    /// Bytes that operators have on disk right now.
    #[cfg(test)]
    pub(super) fn spilled_bytes(&self) -> u64 {
        self.context.runtime_env().disk_manager.used_disk_space()
    }

    /// What an engine's failure means for the user.
    pub(super) fn failure(&self, step: &'static str) -> impl Fn(DataFusionError) -> Error + Send + 'static {
        let (memory_bytes, folder) = (self.memory_bytes, self.folder.clone());
        move |error| explain(error, step, memory_bytes, &folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.parquet"))
    }
}

fn explain(error: DataFusionError, step: &'static str, memory_bytes: u64, folder: &Path) -> Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(reason) => Error::Memory {
            step,
            limit_bytes: memory_bytes,
            reason: reason.lines().next().unwrap_or_default().to_owned(),
        },
        DataFusionError::IoError(e) => Error::spool(folder, e),
        _ => match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::Engine { step, source: Box::new(DataFusionError::External(other)) },
            },
            other => Error::Engine { step, source: Box::new(other) },
        },
    }
}
