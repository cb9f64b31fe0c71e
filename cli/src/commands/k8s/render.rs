//! The manifests of one training: what `k8s/overlays/training-job` holds, for a job file and as many pods as are wanted.

#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, Result};
use data::artifact::Digest;
use data::job::{Job, Stage};
use serde_json::{Value, json};

use crate::args::Render;
use crate::commands::parse_job;
use crate::exit::BadRequest;
use crate::named_files::{NamedFile, named_files};
use crate::terminal::print_error;

/// The pod that submits, and the pods that train: the repository's own, so that both are read, tested and played as one.
const SUBMIT: &str = include_str!("../../../../k8s/overlays/training-job/submit.yaml");
const TRAIN: &str = include_str!("../../../../k8s/overlays/training-job/train.yaml");
/// Where the pods' volume of inputs is mounted.
const INPUTS: &str = "/inputs";
/// What kustomize puts on everything there.
const LABELS: [&str; 2] = ["app.kubernetes.io/name", "app.kubernetes.io/part-of"];
/// The longest name of a Job whose pods, with their index and five letters behind it, have names that are labels.
const LONGEST: usize = 32;

/// A ConfigMap with the job file, a Job that submits it and a Job that trains it.
///
/// # Errors
/// [`BadRequest`] for a job that trains nothing or names files of this machine. Quantities, images and names of Kubernetes are its own
/// to refuse.
pub(super) fn manifests(wish: &Render) -> Result<String> {
    let job = parse_job(&wish.job, &wish.sets)?;
    check(&job, wish)?;
    // Other settings make other objects: Jobs cannot be changed, and one that has ended would pass for the new one.
    let name = format!("{}-{}", label(&job.name)?, digest(&job, wish));
    // So is the job itself: its pods work for no other of a name that many have.
    let sets: Vec<String> = wish.sets.iter().cloned().chain([format!("name={name}")]).collect();
    let job = parse_job(&wish.job, &sets)?;
    let file = format!("job-{name}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": file, "labels": {"app.kubernetes.io/component": "client"}},
        "data": {"job.toml": job.to_toml()},
    });
    let mut text = String::new();
    for mut manifest in [config, submitting(wish, &name, &file)?, training(wish, &name)?] {
        manifest["metadata"]["namespace"] = json!(wish.namespace);
        for key in LABELS {
            manifest["metadata"]["labels"][key] = json!("mllm4rec");
            if let Some(labels) = manifest.pointer_mut("/spec/template/metadata/labels") {
                labels[key] = json!("mllm4rec");
            }
        }
        text += "---\n";
        text += &serde_saphyr::to_string(&manifest).context("cannot write a manifest as YAML")?;
    }
    Ok(text)
}

fn check(job: &Job, wish: &Render) -> Result<()> {
    let mut most = 0;
    for (stage, slices) in [(Stage::TrainRetriever, job.retriever.slices), (Stage::TrainRanker, job.ranker.slices)] {
        if job.runs(stage) {
            most = most.max(slices);
        }
    }
    if most == 0 {
        let what = "the job trains nothing: submit it, and the pool of workers does it";
        return Err(BadRequest(format!("{}: {what}", wish.job.display())).into());
    }
    let files = named_files(job)?;
    let relative = files.iter().filter(|file| file.local().is_some_and(Path::is_relative));
    let relative: Vec<&str> = relative.map(|file| file.key.as_str()).collect();
    if !relative.is_empty() {
        let what = format!("{} must be a path that the pods see, such as /inputs/…, or a URL", relative.join(" and "));
        return Err(BadRequest(format!("{}: {what}", wish.job.display())).into());
    }
    files.iter().filter_map(out_of_sight).for_each(|what| print_error(format_args!("note: {what}")));
    if u64::from(wish.workers) * u64::from(wish.gpus.max(1)) > u64::from(most) {
        let keys = "retriever.slices and ranker.slices";
        print_error(format_args!("note: {most} workers at most train together, as {keys} say: the others will idle"));
    }
    Ok(())
}

/// What is to be said of a file that the pods' volume does not have.
fn out_of_sight(file: &NamedFile) -> Option<String> {
    let (path, setting) = (file.local()?, file.setting());
    match file.is_written {
        true => Some(format!("{setting}: the coordinator writes it, whose pod keeps nothing: name a URL")),
        false if path.starts_with(INPUTS) => None,
        false => Some(format!("{setting} is not below {INPUTS}: the images of coordinator and workers must have it")),
    }
}

fn submitting(wish: &Render, name: &str, file: &str) -> Result<Value> {
    let mut manifest = template(SUBMIT)?;
    put(&mut manifest, "/metadata/name", json!(format!("submit-{name}")))?;
    put(&mut manifest, "/spec/template/spec/containers/0/image", json!(wish.client_image))?;
    let args = ["submit", "/etc/mllm4rec/jobs/job.toml", "--wait"];
    put(&mut manifest, "/spec/template/spec/containers/0/args", json!(args))?;
    put(&mut manifest, "/spec/template/spec/volumes/0", json!({"name": "jobs", "configMap": {"name": file}}))?;
    Ok(manifest)
}

fn training(wish: &Render, name: &str) -> Result<Value> {
    let mut manifest = template(TRAIN)?;
    let own = format!("train-{name}");
    put(&mut manifest, "/metadata/name", json!(own))?;
    put(&mut manifest, "/spec/completions", json!(wish.workers))?;
    put(&mut manifest, "/spec/parallelism", json!(wish.workers))?;
    put(&mut manifest, "/spec/template/metadata/labels/app.kubernetes.io~1instance", json!(own))?;
    if let Some(queue) = &wish.queue {
        manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = json!(queue);
        manifest["spec"]["suspend"] = json!(true);
    }
    put_labels(&mut manifest, &wish.labels)?;
    let pod = manifest.pointer_mut("/spec/template/spec").context("the template has no pod")?;
    let variables = pod.pointer_mut("/containers/0/envFrom").and_then(Value::as_array_mut);
    let secrets = wish.secrets.iter().map(|name| json!({"secretRef": {"name": name}}));
    variables.context("the template has no envFrom")?.extend(secrets);
    put(pod, "/containers/0/image", json!(wish.image))?;
    let args =
        pod.pointer_mut("/containers/0/args").and_then(Value::as_array_mut).context("the template has no args")?;
    for arg in args.iter_mut().filter(|arg| arg.as_str().is_some_and(|arg| arg.starts_with("--job="))) {
        *arg = json!(format!("--job={name}"));
    }
    args.push(json!(if wish.gpus > 0 { "--devices=cuda" } else { "--devices=cpu" }));
    for kind in ["requests", "limits"] {
        put(pod, &format!("/containers/0/resources/{kind}/memory"), json!(wish.memory))?;
    }
    put(pod, "/containers/0/resources/requests/cpu", json!(wish.cpu))?;
    if wish.gpus > 0 {
        pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = json!(wish.gpus.to_string());
        pod["tolerations"] = json!([{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]);
    }
    Ok(manifest)
}

/// Adds labels to the pods of a template, which have some that others go by.
fn put_labels(manifest: &mut Value, more: &[(String, String)]) -> Result<()> {
    let labels = manifest.pointer_mut("/spec/template/metadata/labels").context("the template has no labels")?;
    for (key, value) in more {
        if labels.get(key).is_some() || LABELS.contains(&key.as_str()) {
            let what = format!("--label {key}: the pods have one of that name, be it by another --label");
            return Err(BadRequest(what).into());
        }
        labels[key] = json!(value);
    }
    Ok(())
}

fn template(text: &str) -> Result<Value> {
    serde_saphyr::from_str(text).context("a template is no YAML")
}

/// Changes a value that the template has.
fn put(manifest: &mut Value, at: &str, value: Value) -> Result<()> {
    *manifest.pointer_mut(at).with_context(|| format!("the template has no {at}"))? = value;
    Ok(())
}

/// Tells one rendering from another.
fn digest(job: &Job, wish: &Render) -> String {
    let Render { sets: _, workers, gpus, memory, cpu, queue, secrets, labels, image, client_image, namespace, job: _ } =
        wish;
    let options =
        json!([job.to_toml(), workers, gpus, memory, cpu, queue, secrets, labels, image, client_image, namespace]);
    Digest::of_json(&options).short()[..6].to_owned()
}

/// A job's name as Kubernetes wants names: lower-case letters, digits and hyphens.
fn label(name: &str) -> Result<String> {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(LONGEST)
        .collect();
    let plain = plain.trim_matches('-').to_owned();
    if plain.is_empty() {
        return Err(BadRequest(format!("name = {name:?} leaves no name for Kubernetes: begin it with a letter")).into());
    }
    Ok(plain)
}
