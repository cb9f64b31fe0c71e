//! prepare: the files of the user become items and histories.

use std::collections::BTreeMap;

use data::prepare::{Counts, Gauge, prepare};
use data::tables::RejectedRow;
use proto::Progress;
use serde_json::json;

use crate::Result;
use crate::context::{Context, Output};

/// Makes the items, histories and rejected tables.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let mut output = Output::default();
    let (dataset, limits, spool) = (cx.job.dataset.clone(), cx.job.limits.clone(), cx.spool.clone());
    let gauge = Gauge::default();
    let show = || Progress { done: gauge.rows(), total: 0, unit: "rows".to_owned(), note: gauge.phase().to_owned() };
    let mut prepared = cx.wait_showing(prepare(&dataset, &limits, &spool, &gauge), show)??;
    let counts = prepared.counts;
    cx.part(&mut output, &prepared.items, 0, 1)?;
    let mut written = 0;
    for shard in 0..prepared.shards {
        cx.check()?;
        let Some(rows) = cx.wait_unless_stopped(prepared.histories.next_shard())?? else { break };
        cx.write_part(&mut output, &rows, shard, prepared.shards)?;
        written += rows.len() as u64;
        cx.progress(written, counts.users, "users", String::new);
    }
    cx.part(&mut output, &prepared.rejected, 0, 1)?;
    output.stats.rows = counts.users;
    output.stats.rejected = by_reason(&prepared.rejected);
    output.stats.notes = notes(&counts);
    cx.commit(0, output)
}

/// How often every reason occurs.
pub(crate) fn by_reason(rejected: &[RejectedRow]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for row in rejected {
        *reasons.entry(row.reason.clone()).or_insert(0) += 1;
    }
    reasons
}

fn notes(counts: &Counts) -> BTreeMap<String, serde_json::Value> {
    let figures = [
        ("users", counts.users),
        ("items", counts.items),
        ("interactions", counts.interactions),
        ("below_min_rating", counts.below_min_rating),
        ("without_title", counts.without_title),
        ("duplicates", counts.duplicates),
        ("dropped_users", counts.dropped_users()),
        ("dropped_items", counts.dropped_items()),
        ("short_users", counts.short_users),
    ];
    figures.into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect()
}
