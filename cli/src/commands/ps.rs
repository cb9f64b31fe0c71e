//! `mllm4rec ps`: the jobs of a coordinator, and its workers.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use coordinator::{records, remembered, submissions};
use data::store::Store;
use proto::{Info, JobStatus, WorkerStatus};
use serde_json::{Value, json};

use crate::args::Ps;
use crate::client::Client;
use crate::progress::clock;
use crate::terminal::print;
use crate::{exit, status, target};

/// A job, and whether somebody has removed it since it ended.
struct Listed {
    status: JobStatus,
    removed: bool,
}

/// Lists jobs, the newest first.
pub(crate) async fn run(args: Ps) -> Result<u8> {
    let mut client = Client::connect(&args.reach).await?;
    let info = client.info().await?;
    let mut statuses = client.list().await?;
    if args.all {
        statuses = with_earlier(&target::store_of(&info.root).await?, statuses).await?;
    }
    statuses.reverse();
    let jobs = listed(&info, statuses).await;
    if args.json {
        print(format_args!("{:#}", json(&info, &jobs)));
        return Ok(exit::DONE);
    }
    if !info.waiting.is_empty() {
        print(format_args!("waiting: {}\n", info.waiting));
    }
    if jobs.is_empty() {
        let earlier = if args.all { "" } else { "`mllm4rec ps --all` shows those that ended before, " };
        let which = if args.all { "" } else { " in hand" };
        print(format_args!("no jobs{which} under {}; {earlier}`mllm4rec submit FILE` hands one over", info.root));
    } else {
        print(jobs_table(&jobs));
    }
    if args.workers {
        print("");
        print(workers_table(&info.workers));
    }
    Ok(exit::DONE)
}

/// The jobs in hand and those that only the store remembers, in the order of their submission.
async fn with_earlier(store: &Store, in_hand: Vec<JobStatus>) -> Result<Vec<JobStatus>> {
    let mut known: BTreeMap<String, JobStatus> = in_hand.into_iter().map(|s| (s.job.0.clone(), s)).collect();
    let mut ids = records::list(store).await?;
    ids.extend(known.keys().filter(|id| !ids.contains(id)).cloned().collect::<Vec<_>>());
    let mut jobs = Vec::new();
    for id in submissions::in_order(store, ids).await? {
        jobs.push(match known.remove(&id) {
            Some(status) => status,
            None => remembered(store, &id).await?,
        });
    }
    Ok(jobs)
}

/// Looks which of the jobs that have ended are removed, where this machine can read the store.
async fn listed(info: &Info, statuses: Vec<JobStatus>) -> Vec<Listed> {
    let ended = statuses.iter().any(|status| status.state.ended());
    let kept = if ended { target::kept(&info.root).await.ok() } else { None };
    let removed = |s: &JobStatus| s.state.ended() && kept.as_ref().is_some_and(|(_, jobs)| !jobs.contains(&s.job.0));
    statuses.into_iter().map(|status| Listed { removed: removed(&status), status }).collect()
}

impl Listed {
    fn state(&self) -> &'static str {
        if self.removed { "removed" } else { self.status.state.name() }
    }

    fn json(&self) -> Value {
        let mut value = status::summary(&self.status);
        value["state"] = self.state().into();
        value
    }
}

fn json(info: &Info, jobs: &[Listed]) -> Value {
    let worker = |w: &WorkerStatus| {
        json!({
            "worker": w.worker.0, "name": w.name, "device": w.device, "leaving": w.leaving, "suspect": w.suspect,
            "job": w.job.as_ref().map(|job| &job.0), "stage": w.stage, "shards": w.shards,
        })
    };
    json!({
        "root": info.root,
        "waiting": info.waiting,
        "term": info.term,
        "build": info.build,
        "jobs": jobs.iter().map(Listed::json).collect::<Vec<_>>(),
        "workers": info.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn jobs_table(jobs: &[Listed]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["job", "state", "stage", "", "stages", "age", ""]);
    for listed in jobs {
        let job = &listed.status;
        let at = status::at_work(job).filter(|_| !job.state.ended());
        let percent = at.and_then(status::percent).map(|p| format!("{p:.1} %"));
        let age = if job.age.is_zero() { String::new() } else { clock(job.age) };
        let words = if job.state.ended() { &job.reason } else { &job.waiting };
        table.add_row([
            job.job.0.clone(),
            listed.state().to_owned(),
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
        let state = match (worker.suspect, worker.leaving, worker.job.is_some()) {
            (true, ..) => "suspect",
            (_, true, _) => "leaving",
            (_, false, true) => "at work",
            (_, false, false) => "idle",
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
