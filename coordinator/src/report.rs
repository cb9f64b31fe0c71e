//! `metrics.json`: what a finished job reached and what it cost.

use std::collections::BTreeMap;

use data::artifact::sweep::CHOICE;
use data::artifact::{Done, done_records};
use data::job::{Job, ModelSection, Since, Split, Stage};
use data::store::Store;
use data::tables::{MetricRow, RejectedRow, Table, read_all};
use serde_json::{Map, Value, json};

use crate::Result;
use crate::publish::PublishedFolder;
use crate::records::StageRecord;

/// The most frequent unknown items that a report names; the table has them all.
const NAMED_ITEMS: usize = 10;

/// Where the report of a job lies.
#[must_use]
pub fn path(job: &str) -> String {
    format!("jobs/{job}/metrics.json")
}

/// Reads what the stages of a job left behind and writes its report.
///
/// # Errors
/// Those of the store.
pub async fn write(
    store: &Store,
    id: &str,
    job: &Job,
    stages: &[StageRecord],
    published: &[PublishedFolder],
) -> Result<()> {
    let mut report = json!({"job": id, "seed": job.seed});
    let (mut timings, mut aside) = (Map::new(), Map::new());
    for stage in stages {
        let done = done_records(store, &stage.artifact()).await?;
        let role = stage.role();
        timings.insert(role.clone(), timing(&done));
        let rejected = rejected(&done);
        if !rejected.is_empty() {
            aside.insert(role.clone(), json!(rejected));
        }
        if stage.trial.is_some() {
            continue;
        }
        match stage.stage {
            Stage::Prepare => report["dataset"] = counts(&done),
            Stage::Caption => report["captions"] = sums(&done),
            Stage::TrainRetriever => report["retriever_training"] = notes(&done),
            Stage::TrainRanker => report["ranker_training"] = notes(&done),
            Stage::Retrieve => {
                if let (Some(split), Some(unknown)) = (stage.split, unknown_items(store, stage, &done).await?) {
                    report["unknown_items"][split.as_str()] = unknown;
                }
            }
            Stage::Rank => {
                if let Some(agreement) = eight_bits(&done) {
                    report["fp8"][&role] = agreement;
                }
            }
            Stage::Evaluate => {
                let rows: Vec<MetricRow> = read_all(store, &stage.artifact().table_prefix(Table::Metrics)).await?;
                for (system, form) in systems(&rows) {
                    report[system] = form;
                }
            }
            _ => {}
        }
    }
    if let Some(sweep) = choices(&mut report) {
        report["sweep"] = sweep;
    }
    if let Some(earlier) = job.since.as_ref().and_then(Since::job) {
        report["since"] = since(store, earlier, stages).await?;
    }
    report["timings"] = Value::Object(timings);
    if !published.is_empty() {
        report["published"] = json!(published);
    }
    report["put_aside"] = Value::Object(aside);
    let text = format!("{report:#}\n");
    store.put(&path(id), text.into()).await?;
    Ok(())
}

/// What was chosen for each model that was swept, which is said apart from its training.
fn choices(report: &mut Value) -> Option<Value> {
    let mut choice = |section: ModelSection| {
        let training = report.get_mut(format!("{}_training", section.name()))?;
        Some((section.name().to_owned(), training.as_object_mut()?.remove(CHOICE)?))
    };
    let choices: Map<String, Value> = ModelSection::ALL.into_iter().filter_map(&mut choice).collect();
    (!choices.is_empty()).then_some(Value::Object(choices))
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

/// The items of histories that the retriever does not know, where it was trained on another catalogue.
async fn unknown_items(store: &Store, stage: &StageRecord, done: &[Done]) -> Result<Option<Value>> {
    if !done.iter().any(|d| d.parts.iter().any(|part| part.table == Table::Rejected)) {
        return Ok(None);
    }
    let rows: Vec<RejectedRow> = read_all(store, &stage.artifact().table_prefix(Table::Rejected)).await?;
    let mut users: BTreeMap<String, u64> = BTreeMap::new();
    // Other rows are of users whose shard was put aside.
    for (item, row_users) in rows.into_iter().filter_map(|row| Some((row.item_id?, row.users.unwrap_or(0)))) {
        *users.entry(item).or_default() += row_users;
    }
    if users.is_empty() && !done.iter().any(|d| d.notes.contains_key("unknown_items")) {
        return Ok(None);
    }
    let sum = |name: &str| done.iter().filter_map(|d| d.notes.get(name)?.as_u64()).sum::<u64>();
    let mut most: Vec<(&String, &u64)> = users.iter().collect();
    most.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let named = |(item, users): &(&String, &u64)| json!({"item_id": item, "users": users});
    Ok(Some(json!({
        "items": users.len(),
        "interactions": sum("unknown_interactions"),
        "users_with_unknown_items": sum("users_with_unknown_items"),
        "users_without_known_items": sum("users_without_known_items"),
        "most_frequent": most.iter().take(NAMED_ITEMS).map(named).collect::<Vec<_>>(),
    })))
}

/// How alike answers in eight bits were, where a job wanted those; one decision holds for all shards.
fn eight_bits(done: &[Done]) -> Option<Value> {
    done.iter().find_map(|d| d.notes.get("fp8")).cloned()
}

/// How many users' rows were copied from an earlier job, how many computed, and why.
async fn since(store: &Store, earlier: &str, stages: &[StageRecord]) -> Result<Value> {
    let mut report = json!({"job": earlier});
    let before = crate::records::stages(store, earlier).await.unwrap_or_default();
    for stage in stages.iter().filter(|s| matches!(s.stage, Stage::Retrieve | Stage::Rank)) {
        let done = done_records(store, &stage.artifact()).await?;
        let sum = |name: &str| done.iter().filter_map(|d| d.notes.get(name)?.as_u64()).sum::<u64>();
        let (mut copied, mut rescored) = (sum("copied"), sum("rescored"));
        let mut why: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, users) in done.iter().filter_map(|d| d.notes.get("why")?.as_object()).flatten() {
            *why.entry(reason).or_default() += users.as_u64().unwrap_or(0);
        }
        if before.iter().any(|b| b.artifact() == stage.artifact()) {
            // Nothing at all has changed: it is the earlier job's own.
            (copied, rescored) = (done.iter().map(|d| d.rows).sum(), 0);
            why.clear();
        }
        report[data::artifact::role(stage.stage, stage.split)] =
            json!({"copied": copied, "rescored": rescored, "why": why});
    }
    Ok(report)
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
