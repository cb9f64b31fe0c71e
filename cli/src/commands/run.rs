//! `mllm4rec run`: a whole job on this machine.

use std::time::Instant;

use anyhow::Result;
use data::job::Job;
use data::store::Store;
use proto::{Endpoint, JobStatus};
use serde_json::json;
use worker::devices::{self, Choice, Wish};

use crate::args::Run;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::commands::{read_job, report};
use crate::lock::RootLock;
use crate::progress::{Printer, Progress, clock};
use crate::terminal::print;
use crate::{exit, status, tables};

/// How a job on this machine ended.
pub(crate) enum End {
    /// All stages are done.
    Done(Finished),
    /// The user interrupted it.
    Interrupted,
}

/// A job that is done.
pub(crate) struct Finished {
    /// The job's id.
    pub(crate) job: String,
    /// Whether nothing had to be done.
    pub(crate) nothing_to_do: bool,
    /// How many stages had been done before, and how many there are.
    pub(crate) reused: (usize, usize),
}

/// What of this machine a job uses.
pub(crate) struct Machine {
    workers: u32,
    devices: Choice,
}

impl Machine {
    /// So many workers on the devices that are wished for; what the user should know about these is printed.
    pub(crate) fn new(workers: u32, wish: Wish, printer: &Printer) -> Result<Self> {
        let devices = devices::choose(wish)?;
        if let Some(note) = &devices.note {
            printer.line(note);
        }
        Ok(Self { workers, devices })
    }
}

/// Runs a job and shows what came out.
pub(crate) async fn run(args: Run) -> Result<u8> {
    let started = Instant::now();
    let job = read_job(&args.config, &args.sets, args.root.as_deref())?;
    let store = Store::open(&job.output.root)?;
    let workers = args.workers.unwrap_or(job.cluster.workers);
    let printer = Printer::new();
    let machine = Machine::new(workers, args.devices, &printer)?;
    let _lock = RootLock::take(&store)?;
    let End::Done(finished) = run_job(&job, &store, &machine, &printer).await? else {
        return Ok(exit::INTERRUPTED);
    };
    let report = report(&store, &finished.job).await?;
    if args.json {
        print(format_args!(
            "{:#}",
            json!({"job": finished.job, "root": store.url(), "nothing_to_do": finished.nothing_to_do, "report": report})
        ));
        return Ok(exit::DONE);
    }
    if finished.nothing_to_do {
        print(format_args!(
            "everything is done: all {} stages of {} were finished before\n",
            finished.reused.1, finished.job
        ));
    }
    print(tables::results(&report).trim_end());
    if let Some(words) = status::aside_by_report(&report).and_then(|aside| status::put_aside(&finished.job, &aside)) {
        print(words);
    }
    print(format_args!(
        "{} in {}; see `mllm4rec outputs {} --root {}`",
        finished.job,
        clock(started.elapsed()),
        finished.job,
        store.url()
    ));
    Ok(exit::DONE)
}

/// Runs a job with a coordinator and workers on this machine; the root is the caller's.
pub(crate) async fn run_job(job: &Job, store: &Store, machine: &Machine, printer: &Printer) -> Result<End> {
    let mut cluster = Cluster::start(store.clone(), machine.devices.clone()).await?;
    let outcome = drive(job, machine.workers, printer, &mut cluster).await;
    let stopped = cluster.stop().await;
    // Where the coordinator ended by itself, its word says more than what the client saw of it.
    stopped?;
    outcome
}

async fn drive(job: &Job, workers: u32, printer: &Printer, cluster: &mut Cluster) -> Result<End> {
    let mut client = Client::to(Endpoint::open(cluster.url())).await?;
    let submitted = client.submit(job.to_toml()).await?;
    if !submitted.complete {
        cluster.add_workers(workers, printer)?;
    }
    let mut statuses = client.watch(&submitted.job_id).await?;
    let mut progress = Progress::new(printer.clone());
    let mut patrol = tokio::time::interval(std::time::Duration::from_millis(500));
    loop {
        tokio::select! {
            status = statuses.next() => {
                let status = status?;
                progress.update(&status);
                if status.state.ended() {
                    progress.finish();
                    return ended(&status, submitted.complete);
                }
            }
            _ = patrol.tick() => cluster.revive(printer)?,
            _ = tokio::signal::ctrl_c() => {
                progress.finish();
                printer.line("interrupted: saving what is done; the same command resumes");
                return Ok(End::Interrupted);
            }
        }
    }
}

fn ended(status: &JobStatus, nothing_to_do: bool) -> Result<End> {
    exit::verdict(status)?;
    let reused = status.stages.iter().filter(|s| s.reused).count();
    let job = status.job.0.clone();
    Ok(End::Done(Finished { job, nothing_to_do, reused: (reused, status.stages.len()) }))
}
