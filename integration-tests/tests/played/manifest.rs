//! What the manifests say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Documents that are applied together.
pub(crate) struct Manifests(Vec<Value>);

impl Manifests {
    /// Those of a folder, rendered. Nothing where there is no `kubectl`.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let output = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
            Ok(output) => output,
            Err(e) => {
                println!("SKIPPED: the manifests cannot be rendered without kubectl ({e})");
                return None;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self::read(&String::from_utf8(output.stdout).unwrap()))
    }

    /// Those of a text.
    pub(crate) fn read(text: &str) -> Self {
        Self(serde_saphyr::from_multiple(text).unwrap())
    }

    /// Puts more beside them.
    pub(crate) fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The document of a kind and name.
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        let is_it = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name;
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// The name that begins so.
    pub(crate) fn name(&self, kind: &str, beginning: &str) -> String {
        let names = self.0.iter().filter(|d| d["kind"] == kind).filter_map(|d| d["metadata"]["name"].as_str());
        names.into_iter().find(|name| name.starts_with(beginning)).unwrap().to_owned()
    }

    /// What a ConfigMap holds.
    pub(crate) fn config(&self, name: &str) -> BTreeMap<String, String> {
        let data = self.get("ConfigMap", name)["data"].as_object().unwrap();
        data.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    }
}

/// The elements of a list that may not be there.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
