//! The command line.

mod adapter;
mod cluster;
mod k8s;
mod runs;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use coordinator::access::Role;
use data::tables::CaptionStatus;
use worker::devices::Wish;

use crate::connection::Reach;
pub(crate) use adapter::{Adapter, AdapterAction, AdapterExport, AdapterInspect, AdapterMerge, Float, WhichAdapter};
pub(crate) use cluster::{Cancel, Coordinator, Logs, Ps, Resume, Status, Submit};
pub(crate) use k8s::{K8s, K8sAction, Render};
pub(crate) use runs::{Compare, Runs, RunsAction};

/// From an interaction log, titles and pictures to ranked recommendations for every user.
#[derive(Debug, Parser)]
#[command(name = "mllm4rec", version, about, max_term_width = 100)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How logs are written to standard error; `RUST_LOG` says which.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "MLLM4REC_LOG_FORMAT",
        default_value = "text",
        hide_short_help = true
    )]
    pub(crate) log_format: LogFormat,
    /// Send traces of a coordinator or worker to a collector that speaks OTLP over gRPC, such as http://localhost:4317.
    #[arg(long, global = true, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_short_help = true)]
    pub(crate) otlp: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job on this machine, or what is left of it.
    Run(Run),
    /// Run the whole pipeline on a made-up shop: no data, no network, no GPU.
    Demo(Demo),
    /// Check a job file and report everything that is wrong with it.
    Validate(Validate),
    /// Say what a job's ranker will take: prompt lengths, steps, memory, hours on a card. Nothing is trained.
    Plan(PlanArgs),
    /// List the tables and models of a job: folder, rows, bytes.
    Outputs(Outputs),
    /// Show one user: history, candidates, rank before and after.
    Show(Show),
    /// Compare what jobs have reached, or the trials of a sweep.
    Runs(Runs),
    /// Show a trained adapter, write it for PEFT, or merge it into its base.
    Adapter(Adapter),
    /// List the captions of a job, or write them with their pictures into one page.
    Captions(Captions),
    /// Remove a job and free what no other job needs.
    Rm(Rm),
    /// Free what nobody needs: unfinished attempts, old checkpoints, tables and models that no job names.
    Gc(Gc),
    /// Write the demo's shop of a seed: interactions, pictures, and what they show.
    #[command(hide = true)]
    Shop(Shop),
    /// Coordinate a cluster: take jobs, give their work to workers, keep what is known of them under a root.
    Coordinator(Coordinator),
    /// Work for a coordinator (`run` starts these by itself).
    Worker(Worker),
    /// Hand a job to a coordinator; the same job again is the same job.
    Submit(Submit),
    /// List the jobs of a coordinator, and its workers.
    Ps(Ps),
    /// Show how far a job is, stage by stage.
    Status(Status),
    /// Show what happened to a job.
    Logs(Logs),
    /// End a job; what is done stays done.
    Cancel(Cancel),
    /// Take up again a job that failed or was cancelled.
    Resume(Resume),
    /// Show what this machine can compute with: processor, GPUs, CUDA's libraries, and what is missing; or try a store.
    Doctor(Doctor),
    /// Make certificates for a coordinator, its workers and its operator.
    Certs(Certs),
    /// Write manifests for Kubernetes.
    K8s(K8s),
    /// Make, list and revoke the tokens by which people are known to a coordinator.
    Token(Token),
    /// Decode pictures for the process that started this one.
    #[command(hide = true)]
    DecodePictures,
}

/// `mllm4rec run`
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The job file.
    pub(crate) config: PathBuf,
    /// Override a key of the job file; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Workers to start on this machine; `cluster.workers` by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// Where to compute: auto (GPUs if there are any), cpu, cuda (GPUs or an error), or one of them: cuda:0, cuda:1, ...
    /// A worker uses one device; workers take the GPUs in turn
    #[arg(long, value_name = "DEVICES", default_value_t)]
    pub(crate) devices: Wish,
    /// Where tables, models and control objects go; `output.root` by default.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
    /// Print the result as JSON on standard output, progress on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec demo`
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Where everything goes.
    #[arg(long, value_name = "URL", default_value = "file://./runs/demo")]
    pub(crate) root: String,
    /// Workers to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: u32,
    /// Where to compute: auto, cpu, cuda or cuda:0, ...; see `run`.
    #[arg(long, value_name = "DEVICES", default_value_t)]
    pub(crate) devices: Wish,
    /// The seed of the shop and of every random choice; its models come from shops of the seeds from 500 on.
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u64).range(..500))]
    pub(crate) seed: u64,
    /// Print the result as JSON on standard output, progress on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec validate`
#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// The job file.
    pub(crate) config: PathBuf,
    /// Override a key of the job file; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// `mllm4rec plan`
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The job file.
    pub(crate) config: PathBuf,
    /// Override a key of the job file; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Where the job would run and earlier ones ran; `output.root` by default.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
    /// The card to plan for; `cluster.card` by default, or all that are known.
    #[arg(long, value_name = "NAME")]
    pub(crate) card: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec outputs`
#[derive(Debug, clap::Args)]
pub(crate) struct Outputs {
    /// The job: its id, the beginning of one, or a name that only one job has; without one, the jobs under the root are
    /// listed.
    pub(crate) job: Option<String>,
    /// Where the job ran; the coordinator is asked if one is named, else it is file://./runs.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec show`
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The job's id.
    pub(crate) job: String,
    /// The user's id.
    #[arg(long)]
    pub(crate) user: String,
    /// Which held-out item: test, validation or all.
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Where the job ran.
    #[arg(long, value_name = "URL", default_value = "file://./runs")]
    pub(crate) root: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec captions`
#[derive(Debug, clap::Args)]
pub(crate) struct Captions {
    /// The job's id.
    pub(crate) job: String,
    /// Write a contact sheet: one file with pictures, captions and reasons, to be opened in a browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Only those of a status: ok, missing, undecodable, placeholder or too_large.
    #[arg(long)]
    pub(crate) status: Option<CaptionStatus>,
    /// The most rows: 20 by default, 5,000 in a contact sheet, all as JSON.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// Where the pictures are now; `captions.images` of the job by default.
    #[arg(long, value_name = "URL")]
    pub(crate) images: Option<String>,
    /// Where the job ran.
    #[arg(long, value_name = "URL", default_value = "file://./runs")]
    pub(crate) root: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec rm`
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// The job: its id, the beginning of one, or a name that only one job has.
    pub(crate) job: String,
    /// Where the job ran.
    #[arg(long, value_name = "URL", default_value = "file://./runs")]
    pub(crate) root: String,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec gc`
#[derive(Debug, clap::Args)]
pub(crate) struct Gc {
    /// The root to clear.
    #[arg(long, value_name = "URL", default_value = "file://./runs")]
    pub(crate) root: String,
    /// Leave what is younger, by the clock of the store: 90s, 30m, 24h, 7d.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = cluster::time)]
    pub(crate) older_than: Duration,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec shop`
#[derive(Debug, clap::Args)]
pub(crate) struct Shop {
    /// The seed of the shop.
    #[arg(long)]
    pub(crate) seed: u64,
    /// The folder to write to.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// A host, or a host and a port.
fn peers(text: &str) -> Result<String, String> {
    worker::host_and_port(text).map(|_| text.to_owned())
}

/// `mllm4rec worker`
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Worker {
    /// A name for people; the machine's name and the process by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where to compute: auto or all (every GPU, or the CPU if there is none), cpu, cuda (every GPU, or an error), or one
    /// of them: cuda:0, cuda:1, ...
    #[arg(long, value_name = "DEVICES", default_value_t)]
    pub(crate) devices: Wish,
    /// Workers on this machine, each a process of its own; one for each device by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) count: Option<u32>,
    /// Compute threads of a worker; an equal share of the cores by default.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) threads: Option<usize>,
    /// The host by which other workers of a gang find this one, and a port if not any free one will do; the address on the way
    /// to the coordinator by default.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = peers)]
    pub(crate) peers: Option<String>,
    /// Work for this job alone, by its id or its name, and end with it: with 0 if it succeeded, with 75 if it may succeed later, else with
    /// 65. Where no such job runs for ten minutes, the last one that has ended under this coordinator counts; 75 if there is none.
    #[arg(long, value_name = "JOB", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) job: Option<String>,
    /// A port for health and figures: /livez, /readyz and /metrics, without TLS and without a login; of several workers each takes
    /// the next one. Nothing by default.
    #[arg(long, value_name = "ADDRESS", env = "MLLM4REC_OBSERVE")]
    pub(crate) observe: Option<std::net::SocketAddr>,
    /// Leave when standard input is closed, that is when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
    /// Seconds to look for a coordinator that does not answer; without end by default.
    #[arg(long, hide = true)]
    pub(crate) patience: Option<u64>,
    /// The coordinator; last, since what stands behind it would come under its heading.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec certs`
#[derive(Debug, clap::Args)]
pub(crate) struct Certs {
    /// The folder of the certificates.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A name or address by which the coordinator is reached, besides this machine's own; may be given again.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// How long they are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub(crate) days: u32,
    /// One more certificate of the authority that is there: worker, operator, submitter, viewer or server, and a name.
    #[arg(long, num_args = 2, value_names = ["ROLE", "NAME"])]
    pub(crate) add: Vec<String>,
}

/// `mllm4rec token`
#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it, this once.
    Create(TokenCreate),
    /// List who has a token.
    List(TokenList),
    /// Take a token back. A coordinator that uses the file knows at once.
    Revoke(TokenRevoke),
}

/// `mllm4rec token create`
#[derive(Debug, clap::Args)]
pub(crate) struct TokenCreate {
    /// What the token allows: viewer, submitter or operator.
    #[arg(long)]
    pub(crate) role: Role,
    /// Whose it is.
    #[arg(long)]
    pub(crate) name: String,
    /// The coordinator's file of tokens; made if there is none.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
    /// How long it is valid.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub(crate) days: u32,
}

/// `mllm4rec token list`
#[derive(Debug, clap::Args)]
pub(crate) struct TokenList {
    /// The coordinator's file of tokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mllm4rec token revoke`
#[derive(Debug, clap::Args)]
pub(crate) struct TokenRevoke {
    /// Whose token.
    pub(crate) name: String,
    /// The coordinator's file of tokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
}

/// `mllm4rec doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Try instead whether jobs can run on this store: writes to it below a prefix of its own, and removes that again.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
