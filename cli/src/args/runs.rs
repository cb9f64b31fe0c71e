//! `mllm4rec runs`: what several jobs have reached.

use clap::Subcommand;

use crate::connection::Reach;

/// `mllm4rec runs`
#[derive(Debug, clap::Args)]
pub(crate) struct Runs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: RunsAction,
}

/// What can be done with several jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsAction {
    /// Put jobs beside each other: the settings in which they differ and what each has reached, best first.
    Compare(Compare),
}

/// `mllm4rec runs compare`
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// The jobs: ids, beginnings of them, or names that only one job has.
    #[arg(required = true)]
    pub(crate) jobs: Vec<String>,
    /// Show the trials of a job's sweep instead, with their figures on validation.
    #[arg(long, conflicts_with_all = ["metric", "split"])]
    pub(crate) trials: bool,
    /// What to compare: recall, mrr or ndcg at 1, 5, 10, 20 or 50.
    #[arg(long, default_value = "ndcg@10")]
    pub(crate) metric: String,
    /// Of which held-out item: test or validation.
    #[arg(long, default_value = "test")]
    pub(crate) split: String,
    /// Where the jobs ran; the coordinator is asked if one is named, else it is file://./runs.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}
