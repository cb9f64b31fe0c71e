//! Types: a key that Kubernetes does not know, or a value of another type, is told by reading a document as its kind and writing
//! it again.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::catalogue::{all, name};
use crate::schemas;

#[test]
fn every_key_is_one_that_kubernetes_knows() {
    for rendered in all().unwrap_or_default() {
        assert!(!rendered.documents.is_empty(), "{}", rendered.name);
        for document in &rendered.documents {
            let lost = lost_by_kind(document);
            assert!(lost.is_empty(), "{}: {} {}: {lost:?}", rendered.name, document["kind"], name(document));
        }
    }
}

/// What is lost of a document when it is read as what it says it is.
fn lost_by_kind(document: &Value) -> Vec<String> {
    let kind = (document["apiVersion"].as_str().unwrap(), document["kind"].as_str().unwrap());
    match kind {
        ("v1", "Namespace") => lost::<Namespace>(document),
        ("v1", "ServiceAccount") => lost::<ServiceAccount>(document),
        ("v1", "Service") => lost::<Service>(document),
        ("v1", "ConfigMap") => lost::<ConfigMap>(document),
        ("v1", "PersistentVolumeClaim") => lost::<PersistentVolumeClaim>(document),
        ("apps/v1", "Deployment") => lost::<Deployment>(document),
        ("batch/v1", "Job") => lost::<Job>(document),
        ("batch/v1", "CronJob") => lost::<CronJob>(document),
        ("networking.k8s.io/v1", "NetworkPolicy") => lost::<NetworkPolicy>(document),
        ("networking.k8s.io/v1", "Ingress") => lost::<Ingress>(document),
        ("scheduling.k8s.io/v1", "PriorityClass") => lost::<PriorityClass>(document),
        ("jobset.x-k8s.io/v1alpha2", "JobSet") => {
            let jobs = document["spec"]["replicatedJobs"].as_array().unwrap();
            jobs.iter().flat_map(|job| lost::<JobTemplateSpec>(&job["template"])).collect()
        }
        (_, kind) => {
            assert!(schemas::has(kind), "nothing knows what a {kind} may hold");
            Vec::new()
        }
    }
}

fn lost<T: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(document.clone()) {
        Ok(read) => {
            let mut lost = Vec::new();
            compare(document, &serde_json::to_value(read).unwrap(), String::new(), &mut lost);
            lost
        }
        Err(e) => vec![e.to_string()],
    }
}

fn compare(written: &Value, read: &Value, at: String, lost: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                compare(value, read.get(key).unwrap_or(&Value::Null), format!("{at}.{key}"), lost);
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (i, (written, read)) in written.iter().zip(read).enumerate() {
                compare(written, read, format!("{at}[{i}]"), lost);
            }
        }
        // An empty object may be written as nothing.
        (Value::Object(written), Value::Null) if written.is_empty() => {}
        _ if written == read => {}
        _ => lost.push(format!("{at}: {written} is read as {read}")),
    }
}

#[test]
fn a_key_that_is_spelt_wrong_is_found() {
    let deployment = |spec: &str| -> Value { serde_json::from_str(&format!("{{\"spec\": {spec}}}")).unwrap() };
    let pod = r#"{"replicas": 1, "selector": {}, "template": {"spec": {"containers": [], "terminationGracePeriodSecond": 9}}}"#;
    let lost = lost::<Deployment>(&deployment(pod));
    assert_eq!(lost, [".spec.template.spec.terminationGracePeriodSecond: 9 is read as null"]);
    let lost = self::lost::<Deployment>(&deployment(r#"{"replicas": "one", "selector": {}, "template": {}}"#));
    assert_eq!(lost.len(), 1, "{lost:?}");
}
