//! The pods of the manifests, whatever makes them.

use serde_json::Value;

use crate::catalogue::{Rendered, name};

/// A pod that something makes.
pub(crate) struct Pod<'a> {
    /// For messages.
    pub(crate) from: String,
    pub(crate) labels: &'a Value,
    pub(crate) spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn of(rendered: &Rendered, document: &'a Value, template: &'a Value) -> Self {
        let kind = document["kind"].as_str().unwrap();
        let from = format!("{}: {kind} {}", rendered.name, name(document));
        Self { from, labels: &template["metadata"]["labels"], spec: &template["spec"] }
    }

    pub(crate) fn component(&self) -> &str {
        self.labels["app.kubernetes.io/component"].as_str().unwrap_or_else(|| panic!("{}: no component", self.from))
    }

    pub(crate) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        list(&self.spec["containers"]).chain(list(&self.spec["initContainers"]))
    }

    /// Named ports of its containers.
    pub(crate) fn ports(&self) -> Vec<(&'a str, u64)> {
        let ports = self.containers().flat_map(|container| list(&container["ports"]));
        ports.map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap())).collect()
    }

    /// Whether a label selector means it.
    pub(crate) fn is_selected_by(&self, selector: &Value) -> bool {
        let equal = selector["matchLabels"].as_object();
        let labels = |(key, value): (&String, &Value)| self.labels[key] == *value;
        let any = |expression: &Value| {
            assert_eq!(expression["operator"], "In");
            list(&expression["values"]).any(|value| self.labels[expression["key"].as_str().unwrap()] == *value)
        };
        equal.is_none_or(|equal| equal.iter().all(labels)) && list(&selector["matchExpressions"]).all(any)
    }
}

/// The pods of what is rendered, with those of what it stands beside.
pub(crate) fn pods(rendered: &Rendered) -> Vec<Pod<'_>> {
    let of = |document| templates(document).into_iter().map(move |template| Pod::of(rendered, document, template));
    rendered.installed().flat_map(of).collect()
}

fn templates(document: &Value) -> Vec<&Value> {
    match document["kind"].as_str().unwrap() {
        "Deployment" | "Job" => vec![&document["spec"]["template"]],
        "CronJob" => vec![&document["spec"]["jobTemplate"]["spec"]["template"]],
        "JobSet" => list(&document["spec"]["replicatedJobs"]).map(|job| &job["template"]["spec"]["template"]).collect(),
        _ => Vec::new(),
    }
}

/// The elements of a list that may not be there.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
