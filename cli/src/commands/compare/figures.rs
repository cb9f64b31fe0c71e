//! What a job has reached, and with which settings.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use coordinator::records;
use data::artifact::Digest;
use data::job::{Job, ModelSection, nearest, plain};
use data::store::Store;
use serde_json::Value;

use crate::commands::report;
use crate::exit::BadRequest;
use crate::target;

/// Characters of a setting in a table.
const WIDTH: usize = 24;

/// A job that can be compared.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) job: String,
    /// Every setting; of a job with a sweep, those that it has chosen.
    pub(super) settings: BTreeMap<String, Value>,
    /// How many trials were compared before, by model.
    pub(super) trials: BTreeMap<&'static str, usize>,
    /// Value and interval of the retriever over the whole catalogue, and of the ranker; null where there is none.
    pub(super) retriever: Value,
    pub(super) ranker: Value,
}

impl Entry {
    /// What decides: the ranker where there is one.
    fn figure(&self) -> &Value {
        if self.ranker.is_null() { &self.retriever } else { &self.ranker }
    }

    /// A setting as a cell. A long text is named by its content.
    pub(super) fn setting(&self, key: &str) -> String {
        let Some(value) = self.settings.get(key) else { return "–".to_owned() };
        let text = plain(value);
        match value {
            Value::String(_) if text.contains('\n') => {
                format!("text {}", &Digest::of_bytes(text.as_bytes()).short()[..8])
            }
            _ if text.chars().count() > WIDTH => format!("…{}", last(&text, WIDTH - 1)),
            _ => text,
        }
    }

    /// A second line about the sweep of the job.
    pub(super) fn swept(&self) -> String {
        let of: Vec<String> = self.trials.iter().map(|(model, n)| format!("{model}: best of {n} trials")).collect();
        if of.is_empty() { String::new() } else { format!("\n{}", of.join("\n")) }
    }
}

/// The end of a path says more than its beginning.
fn last(text: &str, characters: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    all[all.len().saturating_sub(characters)..].iter().collect()
}

/// Reads a job and its report.
pub(super) async fn read(store: &Store, meant: &str, split: &str, metric: &str) -> Result<Entry> {
    let id = target::job_in(store, meant).await?;
    if !store.exists(&coordinator::report::path(&id)).await? {
        let why = "it has not finished: it has no metrics.json yet, see `mllm4rec status`";
        return Err(BadRequest(why.to_owned()).into());
    }
    let report = report(store, &id).await?;
    let mut job = Job::parse(&id, &records::job_toml(store, &id).await?, &[])?;
    let (mut trials, mut chosen) = (BTreeMap::new(), BTreeMap::new());
    for section in ModelSection::ALL {
        let choice = &report["sweep"][section.name()];
        if let Some(settings) = choice["settings"].as_object() {
            chosen.extend(settings.iter().map(|(key, value)| (key.clone(), value.clone())));
            trials.insert(section.name(), choice["trials"].as_array().map_or(0, Vec::len));
        }
    }
    if !chosen.is_empty() {
        job = job.with_settings(&chosen)?;
    }
    let [retriever, ranker] = ["retriever", "ranker"].map(|system| report[system][split]["overall"][metric].clone());
    if retriever.is_null() && ranker.is_null() {
        return Err(BadRequest(lacks(&report, split, metric)).into());
    }
    Ok(Entry { job: id, settings: job.settings(), trials, retriever, ranker })
}

/// Why a report has no such figure.
fn lacks(report: &Value, split: &str, metric: &str) -> String {
    let names =
        |value: &Value| -> Vec<String> { value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect() };
    let (splits, metrics) = (names(&report["retriever"]), names(&report["retriever"][split]["overall"]));
    if splits.is_empty() {
        return "it has no figures: `evaluate` is not in its stages, or nothing was held out".to_owned();
    }
    if metrics.is_empty() {
        return format!("it has no figures for the split {split}; it has {}", splits.join(", "));
    }
    let near = nearest(metric, metrics.iter().map(String::as_str)).map(|near| format!("; did you mean {near}?"));
    format!("it has no {metric}{}", near.unwrap_or_else(|| format!("; it has {}", metrics.join(", "))))
}

/// Best first; equal ones in the order in which they were named.
pub(super) fn sort(entries: &mut [Entry]) {
    let value = |entry: &Entry| entry.figure()["value"].as_f64().unwrap_or(f64::NEG_INFINITY);
    entries.sort_by(|a, b| value(b).total_cmp(&value(a)));
}

/// The settings that are not the same in all jobs.
pub(super) fn varied(entries: &[Entry]) -> Vec<String> {
    let all: BTreeSet<&String> = entries.iter().flat_map(|entry| entry.settings.keys()).collect();
    let differs = |key: &&String| entries.iter().any(|entry| entry.settings.get(*key) != entries[0].settings.get(*key));
    all.into_iter().filter(differs).cloned().collect()
}

/// Those whose interval reaches into that of the best: chance may have decided.
pub(super) fn overlapping(entries: &[Entry]) -> Option<String> {
    let (best, others) = entries.split_first()?;
    let low = best.figure()["low"].as_f64()?;
    let within = |entry: &&Entry| entry.figure()["high"].as_f64().is_some_and(|high| high >= low);
    let close: Vec<&str> = others.iter().filter(within).map(|entry| entry.job.as_str()).collect();
    (!close.is_empty()).then(|| format!("the interval of the best overlaps with that of {}", close.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(job: &str, dropout: f64, retriever: [f64; 3], ranker: Option<[f64; 3]>) -> Entry {
        let figure = |[value, low, high]: [f64; 3]| json!({"value": value, "low": low, "high": high});
        let settings = [("seed", json!(1)), ("retriever.dropout", json!(dropout))];
        Entry {
            job: job.to_owned(),
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
            trials: BTreeMap::new(),
            retriever: figure(retriever),
            ranker: ranker.map_or(Value::Null, figure),
        }
    }

    #[test]
    fn the_best_comes_first_by_its_last_system() {
        let mut entries = [
            entry("a", 0.1, [0.3, 0.2, 0.4], None),
            entry("b", 0.2, [0.1, 0.0, 0.2], Some([0.5, 0.45, 0.6])),
            entry("c", 0.2, [0.3, 0.2, 0.4], None),
        ];
        sort(&mut entries);
        assert_eq!(entries.iter().map(|e| e.job.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
        assert_eq!(varied(&entries), ["retriever.dropout"]);
        assert_eq!(overlapping(&entries), None);
        assert!(overlapping(&entries[1..]).is_some_and(|words| words.ends_with("that of c")));
    }

    #[test]
    fn long_settings_stay_cells() {
        let mut entry = entry("a", 0.0, [0.0; 3], None);
        assert_eq!(entry.setting("retriever.dropout"), "0");
        assert_eq!(entry.setting("ranker.role"), "–");
        entry.settings.insert("ranker.base".to_owned(), json!("/a/very/long/way/to/the/folder/llama-2-7b"));
        entry.settings.insert("ranker.template".to_owned(), json!("two\nlines"));
        assert_eq!(entry.setting("ranker.base"), "…o/the/folder/llama-2-7b");
        assert!(entry.setting("ranker.template").starts_with("text "));
    }

    #[test]
    fn a_figure_that_is_not_there_names_what_is() {
        let report = json!({"retriever": {"test": {"overall": {"ndcg@10": {}, "recall@5": {}}}}});
        assert!(lacks(&report, "test", "ndcg@11").contains("did you mean ndcg@10?"));
        assert!(lacks(&report, "all", "ndcg@10").contains("no figures for the split all; it has test"));
        assert!(lacks(&json!({}), "test", "ndcg@10").contains("`evaluate`"));
    }
}
