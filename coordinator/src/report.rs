//! `metrics.json`: what a finished job reached and what it cost.

use std::collections::BTreeMap;

use data::artifact::{Done, done_records};
use data::job::{Job, Split, Stage};
use data::store::Store;
use data::tables::{MetricRow, Table, read_all};
use serde_json::{Map, Value, json};

use crate::Result;
use crate::records::StageRecord;

/// Where the report of a job lies.
#[must_use]
pub fn path(job: &str) -> String {
    format!("jobs/{job}/metrics.json")
}

/// Reads what the stages of a job left behind and writes its report.
///
/// # Errors
/// Those of the store.
pub async fn write(store: &Store, id: &str, job: &Job, stages: &[StageRecord]) -> Result<()> {
    let mut report = json!({"job": id, "seed": job.seed});
    let (mut timings, mut aside) = (Map::new(), Map::new());
    for stage in stages {
        let done = done_records(store, &stage.artifact()).await?;
        let role = data::artifact::role(stage.stage, stage.split);
        timings.insert(role.clone(), timing(&done));
        let rejected = rejected(&done);
        if !rejected.is_empty() {
            aside.insert(role, json!(rejected));
        }
        match stage.stage {
            Stage::Prepare => report["dataset"] = counts(&done),
            Stage::Caption => report["captions"] = sums(&done),
            Stage::TrainRetriever => report["retriever_training"] = notes(&done),
            Stage::TrainRanker => report["ranker_training"] = notes(&done),
            Stage::Evaluate => {
                let rows: Vec<MetricRow> = read_all(store, &stage.artifact().table_prefix(Table::Metrics)).await?;
                for (system, form) in systems(&rows) {
                    report[system] = form;
                }
            }
            _ => {}
        }
    }
    report["timings"] = Value::Object(timings);
    report["put_aside"] = Value::Object(aside);
    let text = format!("{report:#}\n");
    store.put(&path(id), text.into()).await?;
    Ok(())
}

fn timing(done: &[Done]) -> Value {
    let seconds: f64 = done.iter().map(|d| d.seconds).sum();
    let rows: u64 = done.iter().map(|d| d.rows).sum();
    let steps: u64 = done.iter().map(|d| d.steps).sum();
    let rate = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    let peak = done.iter().map(|d| d.peak_rss_bytes).max().unwrap_or(0);
    json!({
        "seconds": seconds, "steps": steps, "steps_per_second": rate(steps), "rows": rows,
        "rows_per_second": rate(rows), "peak_rss_bytes": peak,
    })
}

/// The notes of a stage with a single shard.
fn notes(done: &[Done]) -> Value {
    done.first().map_or(Value::Null, |d| json!(d.notes))
}

/// The notes of all shards that are counts, added up.
fn sums(done: &[Done]) -> Value {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in done.iter().flat_map(|d| &d.notes) {
        *sums.entry(name).or_default() += count.as_u64().unwrap_or(0);
    }
    json!(sums)
}

fn counts(done: &[Done]) -> Value {
    let mut counts = notes(done);
    counts["rejected"] = json!(rejected(done).values().sum::<u64>());
    counts
}

/// Rows of all shards that were put aside, by reason.
fn rejected(done: &[Done]) -> BTreeMap<&str, u64> {
    let mut rejected: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, rows) in done.iter().flat_map(|d| &d.rejected) {
        *rejected.entry(reason).or_default() += rows;
    }
    rejected
}

/// system → split → population → metric@k → value and interval, beside the number of users.
fn systems(rows: &[MetricRow]) -> BTreeMap<String, Value> {
    let mut systems: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows {
        let system = systems.entry(row.system.clone()).or_insert_with(|| json!({}));
        let split: Split = row.split;
        let form = &mut system[split.as_str()];
        form[&row.population][format!("{}@{}", row.metric, row.k)] =
            json!({"value": row.value, "low": row.low, "high": row.high});
        let users = if row.population == "overall" { "users".to_owned() } else { format!("{}_users", row.population) };
        form[users] = json!(row.users);
    }
    systems
}
