//! `[sweep]`: a grid of settings. Each of its points is a trial, a training like that of a job with these settings, and the
//! best of them on validation is what the job goes on with.

mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;
use toml::Table;

use super::{Job, ModelSection};
use crate::Result;

/// The most trials of a job.
pub(super) const MAX_TRIALS: usize = 256;

/// The grid of a job; empty where it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    keys: Vec<SweptKey>,
}

/// One axis of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct SweptKey {
    /// The key with its sections, `retriever.dropout`.
    pub key: String,
    /// The model that it is a setting of.
    pub section: ModelSection,
    /// The values that are tried, in the order of the file.
    pub values: Vec<toml::Value>,
}

/// One point of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// For people: `dropout=0.1 weight_decay=0`.
    pub label: String,
    /// The settings that make it: key with its sections → value, as the digest of its training has it.
    pub settings: BTreeMap<String, Value>,
    /// The job that would train just this.
    pub job: Job,
}

impl Sweep {
    /// Whether the job tries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The axes of the grid of a model, in the order of their names. The first of them changes slowest.
    pub fn keys(&self, section: ModelSection) -> impl Iterator<Item = &SweptKey> {
        self.keys.iter().filter(move |swept| swept.section == section)
    }

    /// The number of trials of a model.
    #[must_use]
    pub fn trials(&self, section: ModelSection) -> usize {
        let axes = self.keys(section).map(|swept| swept.values.len());
        if self.keys(section).next().is_none() { 0 } else { axes.fold(1, usize::saturating_mul) }
    }

    /// Every combination of the values of a model.
    fn points(&self, section: ModelSection) -> Vec<Vec<(&str, &toml::Value)>> {
        let mut points = vec![Vec::new()];
        for swept in self.keys(section) {
            let with = |point: &Vec<_>, value| point.iter().copied().chain([(swept.key.as_str(), value)]).collect();
            points = points.iter().flat_map(|point| swept.values.iter().map(move |value| with(point, value))).collect();
        }
        points.retain(|point| !point.is_empty());
        points
    }
}

impl Job {
    /// The trials of a model in the order of the grid; none where it is not swept.
    #[must_use]
    pub fn trials(&self, section: ModelSection) -> Vec<Trial> {
        let trial = |point: Vec<_>| Trial::of(&self.merged, section, &point);
        let trials: Result<_> = self.sweep.points(section).into_iter().map(trial).collect();
        trials.expect("every trial was read when the job was")
    }

    /// The job without a sweep and with settings that a trial of it had.
    ///
    /// # Errors
    /// [`crate::Error::Job`] if these are not settings of such a job.
    pub fn with_settings(&self, settings: &BTreeMap<String, Value>) -> Result<Self> {
        let value = |value: &Value| toml::Value::try_from(value).unwrap_or(toml::Value::String(value.to_string()));
        let settings: Vec<(&str, toml::Value)> = settings.iter().map(|(key, v)| (key.as_str(), value(v))).collect();
        parse(&self.merged, settings.iter().map(|(key, value)| (*key, value)))
    }
}

impl Trial {
    /// The trial at a point of the grid of a job file.
    fn of(file: &Table, section: ModelSection, point: &[(&str, &toml::Value)]) -> Result<Self> {
        let job = parse(file, point.iter().copied())?;
        let own = section.settings(&job);
        let setting = |key: &str| own.pointer(&key[section.name().len()..].replace('.', "/")).cloned();
        let settings: BTreeMap<String, Value> =
            point.iter().map(|(key, _)| ((*key).to_owned(), setting(key).unwrap_or_default())).collect();
        Ok(Self { label: label(section, &settings), settings, job })
    }
}

/// The job of a file with other settings, and without its sweep.
fn parse<'a>(file: &Table, settings: impl Iterator<Item = (&'a str, &'a toml::Value)>) -> Result<Job> {
    let mut file = file.clone();
    file.remove("sweep");
    for (key, value) in settings {
        set(&mut file, key, value);
    }
    Job::parse("job", &file.to_string(), &[])
}

/// Puts a value into a table; what stands in the way of a section stays, and is reported by whoever reads it.
fn set(table: &mut Table, key: &str, value: &toml::Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value.clone())),
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| toml::Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                set(section, rest, value);
            }
        }
    }
}

/// Settings of a model as people read them, without the name of its section.
#[must_use]
pub fn label(section: ModelSection, settings: &BTreeMap<String, Value>) -> String {
    let short =
        |key: &str| key.strip_prefix(section.name()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(key).to_owned();
    let words: Vec<String> = settings.iter().map(|(key, value)| format!("{}={}", short(key), plain(value))).collect();
    words.join(" ")
}

/// A value without quotes and brackets: `0.1`, `0`, `q_proj+v_proj`.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join("+"),
        Value::Number(number) if number.is_f64() => number.as_f64().map(|x| x.to_string()).unwrap_or_default(),
        other => other.to_string(),
    }
}
