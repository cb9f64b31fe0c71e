//! The data sets, read and filtered as the product does it.

use anyhow::{Context, Result};
use data::dataset::Catalogue;
use data::job::{Job, Limits};
use data::prepare::{Gauge, prepare};

use super::Options;

/// Users and what the job says of the retriever.
pub(super) struct Dataset {
    pub(super) items: usize,
    /// The items of every user in order, as dense ids from 1 on.
    pub(super) users: Vec<Vec<u32>>,
    pub(super) settings: data::job::Retriever,
    pub(super) seed: u64,
}

/// Reads a data set by the job file of that name.
pub(super) fn read(options: &Options, name: &str) -> Result<Dataset> {
    let folder = match name {
        "beauty" => "amazon-beauty",
        _ => "ml-latest-small",
    };
    let file = options.project.join(format!("configs/{name}.toml"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let path = options.data.join(folder);
    // The settings of the reference implementation, whatever the job prefers.
    let overrides = [format!("dataset.path={}", path.display()), "retriever.dropout=0.2".to_owned()];
    let job = Job::parse(&file.display().to_string(), &text, &overrides)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(collect(&job, &job.limits))
}

async fn collect(job: &Job, limits: &Limits) -> Result<Dataset> {
    let spool = tempfile::tempdir()?;
    let mut prepared = prepare(&job.dataset, limits, spool.path(), &Gauge::default()).await?;
    let catalogue = Catalogue::new(prepared.items.clone())?;
    let mut users = Vec::new();
    while let Some(shard) = prepared.histories.next_shard().await? {
        for history in &shard {
            users.push(catalogue.encode(history)?);
        }
    }
    Ok(Dataset { items: catalogue.len() as usize, users, settings: job.retriever.clone(), seed: job.seed })
}
