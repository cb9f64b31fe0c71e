//! Statuses as people read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use proto::{JobState, JobStatus, StageState, StageStatus};
use serde_json::Value;

use super::{eta, percent, settled, stage_name, stage_state_name, stages_done};
use crate::progress::{clock, grouped};

/// Characters of a note in a table.
const NOTE: usize = 60;

/// The status of a job with a line for each stage.
pub(crate) fn page(status: &JobStatus) -> String {
    let status = &settled(status);
    let mut text = format!(
        "{}: {}, {} of {} stages done, {} worker{}, submitted {} ago\n",
        status.job,
        status.state.name(),
        stages_done(status),
        status.stages.len(),
        status.workers,
        if status.workers == 1 { "" } else { "s" },
        clock(status.age)
    );
    for (what, words) in [("waiting", &status.waiting), (status.state.name(), &status.reason)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{what}: {words}");
        }
    }
    let _ = write!(text, "\n{}", stages(status));
    for stage in &status.stages {
        if let Some(words) = lost(stage) {
            let _ = write!(text, "\n{}: {words}", stage_name(stage));
        }
    }
    text
}

/// Rows that were put aside: stage, reason, count.
pub(crate) type Aside = BTreeMap<String, BTreeMap<String, u64>>;

/// What a status says of it: what happened since this coordinator leads.
pub(crate) fn aside_by_status(status: &JobStatus) -> Aside {
    status.stages.iter().map(|s| (stage_name(s), s.rejected.clone())).collect()
}

/// What the report of a job that is done says of it: everything.
pub(crate) fn aside_by_report(report: &Value) -> Option<Aside> {
    let aside: Aside = serde_json::from_value(report.get("put_aside")?.clone()).ok()?;
    // There a split comes behind a point, as in the names of roles.
    Some(aside.into_iter().map(|(stage, reasons)| (stage.replacen('.', ":", 1), reasons)).collect())
}

/// What was put aside in a job that is done, and how to see it.
pub(crate) fn put_aside(job: &str, aside: &Aside) -> Option<String> {
    let rows: u64 = aside.values().flat_map(BTreeMap::values).sum();
    let of_stage = |(stage, reasons): (&String, &BTreeMap<String, u64>)| {
        (!reasons.is_empty()).then(|| format!("{stage}: {}", listed(reasons)))
    };
    let stages: Vec<String> = aside.iter().filter_map(of_stage).collect();
    (rows > 0).then(|| {
        format!(
            "complete with {} rows put aside ({}); the tables `rejected` in `mllm4rec outputs {job}` name every one",
            grouped(rows),
            stages.join("; "),
        )
    })
}

fn listed(reasons: &BTreeMap<String, u64>) -> String {
    let reasons: Vec<String> = reasons.iter().map(|(why, rows)| format!("{} × {why}", grouped(*rows))).collect();
    reasons.join(", ")
}

fn stages(status: &JobStatus) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["stage", "state", "shards", "done", "of", "", "rate", "ETA", "leases", "again", "oldest", ""]);
    for stage in &status.stages {
        table.add_row(row(status.state, stage));
    }
    for column in 2..11 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(job: JobState, stage: &StageStatus) -> [String; 12] {
    let mut cells = <[String; 12]>::default();
    cells[0] = stage_name(stage);
    cells[1] = if stage.reused { "done before".to_owned() } else { stage_state_name(job, stage).to_owned() };
    // What nobody has opened yet, and what was finished under an earlier coordinator, has nothing to count.
    if stage.reused || (stage.shards.all == 0 && matches!(stage.state, StageState::Waiting | StageState::Done)) {
        return cells;
    }
    let shards = stage.shards;
    let at_work = if shards.leased > 0 { format!(" +{}", shards.leased) } else { String::new() };
    cells[2] = match stage.members {
        0 => format!("{}/{}{at_work}", grouped(shards.done.into()), grouped(shards.all.into())),
        1 => "1 worker".to_owned(),
        members => format!("{} workers", grouped(members.into())),
    };
    if stage.progress.total > 0 {
        cells[3] = grouped(stage.progress.done);
        cells[4] = format!("{} {}", grouped(stage.progress.total), stage.progress.unit).trim_end().to_owned();
    }
    cells[5] = percent(stage).map(|p| format!("{p:.1} %")).unwrap_or_default();
    if stage.state == StageState::Running && !job.ended() {
        if stage.rate > 0.0 {
            cells[6] = speed(stage.rate);
        }
        cells[7] = eta(stage, stage.rate).map(clock).unwrap_or_default();
        cells[10] = clock(stage.oldest_lease);
    }
    cells[8] = stage.attempts.to_string();
    cells[9] = stage.retries.to_string();
    cells[11] = shortened(&stage.progress.note);
    cells
}

/// A note that leaves the table its shape; `--json` has all of it.
fn shortened(note: &str) -> String {
    if note.chars().count() <= NOTE { note.to_owned() } else { note.chars().take(NOTE).chain(['…']).collect() }
}

/// `1,204/s`
pub(crate) fn speed(rate: f64) -> String {
    if rate >= 10.0 { format!("{}/s", grouped(rate as u64)) } else { format!("{rate:.1}/s") }
}

/// Rows of a stage that were put aside, by reason, and the shards that are among them.
fn lost(stage: &StageStatus) -> Option<String> {
    let shards: Vec<String> = stage.quarantined.iter().map(ToString::to_string).collect();
    let shards = if shards.is_empty() { String::new() } else { format!(" (shards {})", shards.join(", ")) };
    (!stage.rejected.is_empty()).then(|| format!("put aside: {}{shards}", listed(&stage.rejected)))
}
