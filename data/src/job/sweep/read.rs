//! Reads `[sweep]` and tries every value: each trial is checked as a job of its own would be.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::keys::{divides_prefixes, section_of};
use super::{MAX_TRIALS, Sweep, SweptKey, Trial};
use crate::Error;
use crate::job::reader::Source;
use crate::job::{Job, ModelSection, Problem};

/// How many trials that fail are named.
const NAMED: usize = 3;

impl Sweep {
    /// The grid in a job file, whose other sections have been read; what is wrong with it is reported.
    pub(in crate::job) fn read(table: &Table, source: &Source, job: &Job) -> Self {
        let mut entries = Vec::new();
        flatten("", table, &mut entries);
        let mut sweep = Self::default();
        let mut good = true;
        if entries.is_empty() {
            source
                .report("sweep", "is empty: name keys and lists of values, such as \"retriever.dropout\" = [0.1, 0.2]");
        }
        for (key, value) in entries {
            let twice = sweep.keys.iter().any(|swept| swept.key == key);
            match if twice { Err("is there twice".to_owned()) } else { axis(&key, value, job) } {
                Ok(axis) => sweep.keys.push(axis),
                Err(message) => {
                    good = false;
                    source.report(&format!("sweep.{key}"), message);
                }
            }
        }
        sweep.keys.sort_by(|a, b| a.key.cmp(&b.key));
        let trials: usize =
            ModelSection::ALL.map(|section| sweep.trials(section)).into_iter().fold(0, usize::saturating_add);
        if trials > MAX_TRIALS {
            source.report("sweep", format!("has {trials} trials, allowed are {MAX_TRIALS}: name fewer values"));
        } else if good && !source.has_problems() {
            sweep.try_all(source);
        } else {
            sweep.try_values(source);
        }
        if source.has_problems() { Self::default() } else { sweep }
    }

    /// Reads every trial, and finds out what is wrong where one cannot be read or is there twice.
    fn try_all(&self, source: &Source) {
        let tried = ModelSection::ALL.map(|section| Tried::of(self, section, source.table()));
        if tried.iter().all(Tried::is_sound) {
            return tried.iter().for_each(|tried| self.check_shared(source, tried));
        }
        self.try_values(source);
        if !source.has_problems() {
            tried.iter().for_each(|tried| tried.report(source));
        }
    }

    /// Whether the trials of the ranker can all draw from the same candidates.
    fn check_shared(&self, source: &Source, tried: &Tried<'_>) {
        let negatives = || tried.trials.iter().flatten().map(|trial| trial.job.ranker.negatives);
        for swept in self.keys(tried.section).filter(|swept| divides_prefixes(&swept.key, negatives())) {
            let why = "decides which prefixes candidates are retrieved for, once for all trials: it can be swept only with \
                       ranker.negatives = \"random\"";
            source.report(&format!("sweep.{}", swept.key), why);
        }
    }

    /// Tries each value for itself, with everything else as it is in the file.
    fn try_values(&self, source: &Source) {
        for swept in &self.keys {
            let mut before: Vec<serde_json::Value> = Vec::new();
            for (place, value) in swept.values.iter().enumerate() {
                let report = |message: String| {
                    source.report(&format!("sweep.{}", swept.key), format!("value {} {message}", place + 1));
                };
                match Trial::of(source.table(), swept.section, &[(swept.key.as_str(), value)]).map_err(problems) {
                    Err(found) => {
                        found.into_iter().filter(|p| p.key == swept.key).for_each(|problem| report(problem.message));
                    }
                    Ok(mut trial) => {
                        let own = trial.settings.remove(&swept.key).unwrap_or_default();
                        if let Some(same) = before.iter().position(|other| *other == own) {
                            report(format!("is {value}, as value {} is", same + 1));
                        }
                        before.push(own);
                    }
                }
            }
        }
    }
}

/// The trials of a model as far as they could be read.
struct Tried<'a> {
    section: ModelSection,
    points: Vec<Vec<(&'a str, &'a Value)>>,
    trials: Vec<Result<Trial, Vec<Problem>>>,
}

impl<'a> Tried<'a> {
    fn of(sweep: &'a Sweep, section: ModelSection, file: &Table) -> Self {
        let points = sweep.points(section);
        let trials = points.iter().map(|point| Trial::of(file, section, point).map_err(problems)).collect();
        Self { section, points, trials }
    }

    /// Whether all could be read and no two are the same.
    fn is_sound(&self) -> bool {
        let labels: BTreeSet<&str> = self.trials.iter().flatten().map(|trial| trial.label.as_str()).collect();
        labels.len() == self.trials.len()
    }

    /// Says what is wrong only with several values together.
    fn report(&self, source: &Source) {
        let trials = self.points.iter().zip(&self.trials);
        let mut failed = trials.filter_map(|(point, trial)| Some((point, trial.as_ref().err()?)));
        for (point, problems) in failed.by_ref().take(NAMED) {
            let point: Vec<String> = point.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            for Problem { key, message, .. } in problems {
                source.report("sweep", format!("the trial of {}: {key} {message}", point.join(", ")));
            }
        }
        let more = failed.count();
        if more > 0 {
            source.report("sweep", format!("{more} more trials fail in the same way or another"));
        }
    }
}

/// One key and its values.
fn axis(key: &str, value: &Value, job: &Job) -> Result<SweptKey, String> {
    let section = section_of(key, job)?;
    let values = value.as_array().ok_or_else(|| format!("is {value}, expected a list of values to try"))?;
    if values.is_empty() {
        return Err("is an empty list: name the values to try, or leave the key out".to_owned());
    }
    Ok(SweptKey { key: key.to_owned(), section, values: values.clone() })
}

/// Every key of the section with its full name, written with quotes or without.
fn flatten<'a>(path: &str, table: &'a Table, entries: &mut Vec<(String, &'a Value)>) {
    for (key, value) in table {
        let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, entries),
            _ => entries.push((key, value)),
        }
    }
}

fn problems(error: Error) -> Vec<Problem> {
    match error {
        Error::Job(problems) => problems,
        other => vec![Problem { file: "job".to_owned(), line: None, key: String::new(), message: other.to_string() }],
    }
}
