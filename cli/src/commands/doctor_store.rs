//! `mllm4rec doctor --store URL`: whether a bucket can hold jobs, tried on the bucket itself.

use std::time::Duration;

use anyhow::{Context, Result};
use data::store::probe::{self, Findings};
use data::store::{Retry, Store};
use serde_json::{Value, json};

use crate::exit;
use crate::terminal::print;

/// Somebody waits for the verdict: a store that does not answer is told soon.
const PATIENCE: Retry = Retry {
    attempts: 4,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(2),
    deadline: Duration::from_secs(20),
};

/// Tries the store and says what was seen.
pub(crate) async fn run(url: &str, json: bool) -> Result<u8> {
    // A folder that was mistyped is not made: it would pass.
    let store = Store::open_existing(url)?.with_retry(PATIENCE);
    let findings = probe::examine(&store).await.with_context(|| format!("cannot try {url}"))?;
    let objection = findings.objection();
    if json {
        print(format_args!("{:#}", as_json(&store, &findings)));
    } else {
        print(in_words(&store, &findings));
    }
    Ok(if objection.is_some() { exit::BAD_DATA } else { exit::DONE })
}

fn in_words(store: &Store, findings: &Findings) -> String {
    let mut lines = vec![store.url().to_owned()];
    for verdict in &findings.verdicts {
        let word = if verdict.passed { "ok" } else { "FAILED" };
        lines.push(format!("  {:<18}{word:<8}{}", verdict.trial, verdict.seen));
    }
    let latency = &findings.latency;
    let [create, get, list] = [latency.create, latency.get, latency.list].map(|time| time.as_secs_f64() * 1e3);
    lines.push(format!("  {:<18}create {create:.1} ms, read {get:.1} ms, list {list:.1} ms", "median of a call"));
    lines.push(match findings.objection() {
        None => "jobs can run here".to_owned(),
        Some(reason) => format!("jobs must NOT run here: {reason}"),
    });
    lines.join("\n")
}

fn as_json(store: &Store, findings: &Findings) -> Value {
    let verdicts =
        findings.verdicts.iter().map(|v| json!({"trial": v.trial.to_string(), "passed": v.passed, "seen": v.seen}));
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let latency = &findings.latency;
    json!({
        "store": store.url(),
        "usable": findings.objection().is_none(),
        "objection": findings.objection(),
        "trials": verdicts.collect::<Vec<_>>(),
        "median_ms": {"create": ms(latency.create), "read": ms(latency.get), "list": ms(latency.list)},
    })
}
