//! A model of an earlier job brings its settings along: shape, prompt and labels are those that it was trained with.

use serde_json::{Value, json};
use toml::Table;

use super::{Job, Problem, Stage};
use crate::{Error, Result};

/// The section of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSection {
    /// `[retriever]`
    Retriever,
    /// `[ranker]`
    Ranker,
}

impl ModelSection {
    /// Both, in the order in which they are trained.
    pub const ALL: [Self; 2] = [Self::Retriever, Self::Ranker];

    /// The stage that trains the model.
    #[must_use]
    pub fn training(self) -> Stage {
        match self {
            Self::Retriever => Stage::TrainRetriever,
            Self::Ranker => Stage::TrainRanker,
        }
    }

    /// The model that a stage trains, if it trains one.
    #[must_use]
    pub fn of_training(stage: Stage) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.training() == stage)
    }

    /// Its name in the job file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retriever => "retriever",
            Self::Ranker => "ranker",
        }
    }

    /// The keys that decide over a model, with their values.
    pub(super) fn settings(self, job: &Job) -> Value {
        match self {
            Self::Retriever => json!(job.retriever),
            Self::Ranker => json!(job.ranker),
        }
    }
}

impl Job {
    /// Names an earlier job by another id, in the key `key`.
    ///
    /// # Errors
    /// [`Error::Job`] if the id is none.
    pub fn name_earlier(&mut self, key: &str, id: &str) -> Result<()> {
        let mut merged = self.merged.clone();
        let value = toml::Value::String(format!("job:{id}"));
        match key.split_once('.') {
            None => drop(merged.insert(key.to_owned(), value)),
            Some((section, key)) => {
                if let Some(section) = merged.get_mut(section).and_then(toml::Value::as_table_mut) {
                    section.insert(key.to_owned(), value);
                }
            }
        }
        *self = Self::parse("job", &merged.to_string(), &[])?;
        Ok(())
    }

    /// The same job without `since`: everybody is computed.
    ///
    /// # Errors
    /// [`Error::Job`] if the rest is none.
    pub fn without_since(&self) -> Result<Self> {
        let mut merged = self.merged.clone();
        merged.remove("since");
        Self::parse("job", &merged.to_string(), &[])
    }

    /// Takes the settings of a section from the job that trained its model. What this job's file says itself must be the
    /// same, but for keys that do not belong to the model: `from`, `candidates`, `base`, `micro_batch_tokens`,
    /// `permutations`, `blend`, `calibrate`, `fp8`, `fp8_agreement`. What it does not say is as in that job.
    ///
    /// # Errors
    /// [`Error::Job`] with every key that is set to something else.
    pub fn adopt(&mut self, section: ModelSection, earlier: &Self, id: &str) -> Result<()> {
        let name = section.name();
        let table = |job: &Self| job.merged.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let (own, theirs) = (table(self), table(earlier));
        let mut problems = Vec::new();
        differences(name, &own, &section.settings(self), &section.settings(earlier), &mut |key, own, theirs| {
            let message = format!("is {own}, but job {id} has trained the model with {theirs}: leave it out");
            problems.push(Problem { file: "job".to_owned(), line: None, key, message });
        });
        if !problems.is_empty() {
            return Err(Error::Job(problems));
        }
        let mut merged = self.merged.clone();
        let settings = theirs.into_iter().chain(own).collect();
        merged.insert(name.to_owned(), toml::Value::Table(settings));
        let adopted = Self::parse("job", &merged.to_string(), &[])?;
        *self = adopted.with_enough_labels()?;
        Ok(())
    }

    /// Labels come with the model, candidates with this job.
    fn with_enough_labels(self) -> Result<Self> {
        match self.too_many_candidates() {
            None => Ok(self),
            Some(message) => {
                let key = "retriever.candidates".to_owned();
                Err(Error::Job(vec![Problem { file: "job".to_owned(), line: None, key, message }]))
            }
        }
    }
}

/// Every key of the file that decides over the model and has another value there.
fn differences(path: &str, written: &Table, own: &Value, theirs: &Value, tell: &mut dyn FnMut(String, &Value, &Value)) {
    for (key, value) in written {
        let (own, theirs) = (&own[key], &theirs[key]);
        let path = format!("{path}.{key}");
        match value {
            toml::Value::Table(inner) => differences(&path, inner, own, theirs, tell),
            _ if own != theirs => tell(path, own, theirs),
            _ => {}
        }
    }
}
