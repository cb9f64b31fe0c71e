//! The settings of a job in full, for people who compare jobs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Job, ModelFrom, ModelSection};

impl Job {
    /// Every key that can change what a job reaches, by its full name and with its value, defaults included.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings = BTreeMap::new();
        flatten("dataset", &json!(self.dataset), &mut settings);
        flatten("captions", &self.captions.captioner_keys(), &mut settings);
        for section in ModelSection::ALL {
            flatten(section.name(), &section.settings(self), &mut settings);
        }
        let captions = self.captions.from.job().map_or_else(|| self.captions.from.as_str().to_owned(), of_job);
        let others = [
            ("seed", json!(self.seed)),
            ("dataset.path", json!(self.dataset.path)),
            ("captions.from", json!(captions)),
            ("captions.table", json!(self.captions.table)),
            ("captions.model", json!(self.captions.model)),
            ("retriever.from", from(&self.retriever.from)),
            ("retriever.candidates", json!(self.retriever.candidates)),
            ("ranker.from", from(&self.ranker.from)),
            ("ranker.base", json!(self.ranker.base)),
            ("ranker.permutations", json!(self.ranker.permutations)),
            ("ranker.blend", json!(self.ranker.blend)),
            ("ranker.calibrate", json!(self.ranker.calibrate)),
            ("ranker.fp8", json!(self.ranker.fp8)),
            ("ranker.fp8_agreement", json!(self.ranker.fp8_agreement)),
        ];
        settings.extend(others.map(|(key, value)| (key.to_owned(), value)));
        settings
    }
}

fn of_job(id: &str) -> String {
    format!("job:{id}")
}

fn from(from: &ModelFrom) -> Value {
    match from {
        ModelFrom::Train => json!("train"),
        ModelFrom::Job(id) => json!(of_job(id)),
        ModelFrom::Folder(folder) => json!(folder),
    }
}

fn flatten(path: &str, value: &Value, settings: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, settings)),
        _ => drop(settings.insert(path.to_owned(), value.clone())),
    }
}
