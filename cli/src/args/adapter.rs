//! `mllm4rec adapter`: a trained adapter, apart from the job that made it.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::connection::Reach;

/// `mllm4rec adapter`
#[derive(Debug, clap::Args)]
pub(crate) struct Adapter {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: AdapterAction,
}

/// What can be done with an adapter.
#[derive(Debug, Subcommand)]
pub(crate) enum AdapterAction {
    /// Show what is in an adapter: base, rank, scale, and how far each projection was moved.
    Inspect(AdapterInspect),
    /// Copy a job's adapter into a folder that PEFT reads.
    Export(AdapterExport),
    /// Add an adapter to its base and write the checkpoint that both make, as transformers reads it.
    Merge(AdapterMerge),
}

/// Which adapter is meant, and where it is.
#[derive(Debug, clap::Args)]
pub(crate) struct WhichAdapter {
    /// A folder with adapter_config.json and adapter_model.safetensors, or a job: its id, the beginning of one, or a name
    /// that only one job has.
    pub(crate) adapter: String,
    /// Where the job ran; the coordinator is asked if one is named, else it is file://./runs.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
}

/// `mllm4rec adapter inspect`
#[derive(Debug, clap::Args)]
pub(crate) struct AdapterInspect {
    /// The adapter.
    #[command(flatten)]
    pub(crate) which: WhichAdapter,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec adapter export`
#[derive(Debug, clap::Args)]
pub(crate) struct AdapterExport {
    /// The adapter.
    #[command(flatten)]
    pub(crate) which: WhichAdapter,
    /// The folder to write; it must not be there, or be empty.
    pub(crate) out: PathBuf,
    /// The float type of the factors.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Float,
    /// What the configuration is to name as its base; that of the job by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) base: Option<String>,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec adapter merge`
#[derive(Debug, clap::Args)]
pub(crate) struct AdapterMerge {
    /// The adapter.
    #[command(flatten)]
    pub(crate) which: WhichAdapter,
    /// The folder to write; it must not be there, or be empty.
    pub(crate) out: PathBuf,
    /// The folder of the base; what the adapter names by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Merge into this base even if the job has trained beside another one, or beside files that only look different.
    #[arg(long)]
    pub(crate) any_base: bool,
    /// Round the base's linear layers to NF4 and back first: the weights beside which `quantize = "nf4"` has trained.
    #[arg(long)]
    pub(crate) as_trained: bool,
    /// The float type of the checkpoint; that of the base by default.
    #[arg(long)]
    pub(crate) dtype: Option<Float>,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// A float type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Float {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// Half precision.
    F16,
}
