//! `mllm4rec ps`: the jobs of a coordinator, and its workers.

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use coordinator::{records, remembered};
use data::store::Store;
use proto::{Info, JobStatus, WorkerStatus};
use serde_json::{Value, json};

use crate::args::Ps;
use crate::client::Client;
use crate::progress::clock;
use crate::terminal::print;
use crate::{exit, status};

/// Lists jobs, the newest first.
pub(crate) async fn run(args: Ps) -> Result<u8> {
    let mut client = Client::connect(&args.reach).await?;
    let info = client.info().await?;
    let mut jobs = client.list().await?;
    jobs.reverse();
    if args.all {
        jobs.extend(earlier(&info, &jobs).await?);
    }
    if args.json {
        print(format_args!("{:#}", json(&info, &jobs)));
        return Ok(exit::DONE);
    }
    if jobs.is_empty() {
        print(format_args!("no jobs under {}; `mllm4rec submit FILE` hands one over", info.root));
    } else {
        print(jobs_table(&jobs));
    }
    if args.workers {
        print("");
        print(workers_table(&info.workers));
    }
    Ok(exit::DONE)
}

/// Jobs that only the store remembers.
async fn earlier(info: &Info, known: &[JobStatus]) -> Result<Vec<JobStatus>> {
    let store = Store::open_existing(&info.root)?;
    let mut jobs = Vec::new();
    for id in records::list(&store).await? {
        if !known.iter().any(|job| job.job.0 == id) {
            jobs.push(remembered(&store, &id).await?);
        }
    }
    Ok(jobs)
}

fn json(info: &Info, jobs: &[JobStatus]) -> Value {
    let worker = |w: &WorkerStatus| {
        json!({
            "worker": w.worker.0, "name": w.name, "device": w.device, "leaving": w.leaving,
            "job": w.job.as_ref().map(|job| &job.0), "stage": w.stage, "shards": w.shards,
        })
    };
    json!({
        "root": info.root,
        "term": info.term,
        "build": info.build,
        "jobs": jobs.iter().map(status::summary).collect::<Vec<_>>(),
        "workers": info.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn jobs_table(jobs: &[JobStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["job", "state", "stage", "", "stages", "age", ""]);
    for job in jobs {
        let at = status::at_work(job).filter(|_| !job.state.ended());
        let percent = at.and_then(status::percent).map(|p| format!("{p:.1} %"));
        let age = if job.age.is_zero() { String::new() } else { clock(job.age) };
        let words = if job.state.ended() { &job.reason } else { &job.waiting };
        table.add_row([
            job.job.0.clone(),
            status::state_name(job.state).to_owned(),
            at.map(status::stage_name).unwrap_or_default(),
            percent.unwrap_or_default(),
            format!("{}/{}", status::stages_done(job), job.stages.len()),
            age,
            short(words),
        ]);
    }
    for column in [3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn workers_table(workers: &[WorkerStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["worker", "device", "state", "job", "stage", "shards"]);
    for worker in workers {
        let state = match (worker.leaving, worker.job.is_some()) {
            (true, _) => "leaving",
            (false, true) => "at work",
            (false, false) => "idle",
        };
        let shards = if worker.shards == 0 { String::new() } else { worker.shards.to_string() };
        let job = worker.job.as_ref().map(|job| job.0.clone()).unwrap_or_default();
        let stage = worker.stage.clone().unwrap_or_default();
        table.add_row([worker.name.clone(), worker.device.clone(), state.to_owned(), job, stage, shards]);
    }
    table
}

/// The beginning of what may be a long story: `status` tells all of it.
fn short(words: &str) -> String {
    const MOST: usize = 60;
    let mut text: String = words.chars().take(MOST).collect();
    if text.len() < words.len() {
        text.push('…');
    }
    text
}
