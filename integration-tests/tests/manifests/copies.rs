//! What the manifests say twice, because kustomize cannot say it once, is said alike.

use serde_json::{Value, json};

use crate::catalogue::{self, name};

/// What a job does, rendered with an overlay, but for its own end: how long it stays is up to whoever makes it.
fn of(rendered: &str, kind: &str, called: &str, path: &str) -> Option<Value> {
    let rendered = catalogue::all()?.iter().find(|one| one.name == rendered).unwrap();
    let document = rendered.documents.iter().find(|one| one["kind"] == kind && name(one) == called).unwrap();
    let mut spec = document.pointer(path).unwrap().clone();
    spec.as_object_mut().unwrap().remove("ttlSecondsAfterFinished");
    Some(spec)
}

#[test]
fn a_set_trains_as_a_job_does() {
    let Some(job) = of("training-job", "Job", "train", "/spec") else { return };
    let set = of("training-jobset", "JobSet", "train", "/spec/replicatedJobs/0/template/spec").unwrap();
    assert_eq!(with_own_labels(set), with_own_labels(job));
}

#[test]
fn a_night_is_submitted_as_a_training_is() {
    let Some(mut once) = of("training-job", "Job", "submit", "/spec") else { return };
    let mut nightly = of("gpu with every component", "CronJob", "nightly", "/spec/jobTemplate/spec").unwrap();
    for spec in [&mut once, &mut nightly] {
        let args = spec.pointer_mut("/template/spec/containers/0/args").unwrap();
        assert_eq!((&args[0], args.as_array().unwrap().last().unwrap()), (&json!("submit"), &json!("--wait")));
        *args = Value::Null;
    }
    assert_eq!(with_own_labels(nightly), with_own_labels(once));
}

/// Labels beside these are of the company that it is rendered in.
fn with_own_labels(mut spec: Value) -> Value {
    let labels = spec.pointer_mut("/template/metadata/labels").unwrap().as_object_mut().unwrap();
    labels.retain(|key, _| ["app.kubernetes.io/component", "app.kubernetes.io/instance"].contains(&key.as_str()));
    spec
}
