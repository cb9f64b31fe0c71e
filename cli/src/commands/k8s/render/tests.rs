#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    wish: Render,
}

const JOB: &str = r#"
schema_version = 1
name = "Films_of.2026"
[dataset]
format = "movielens"
path = "/inputs/ml-latest-small"
[ranker]
base = "/inputs/llama"
slices = 4
"#;

/// The manifests for a job file and options.
fn rendered(job: &str, options: &[&str]) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    std::fs::write(&file, job).unwrap();
    let file = file.display().to_string();
    let line = Line::try_parse_from([&["render", "--job", &file], options].concat()).unwrap();
    Ok(serde_saphyr::from_multiple(&manifests(&line.wish)?).unwrap())
}

fn at<'a>(manifest: &'a Value, path: &str) -> &'a Value {
    manifest.pointer(path).unwrap_or_else(|| panic!("no {path} in {manifest:#}"))
}

#[test]
fn a_job_file_becomes_a_gang_of_its_own() {
    let options = ["--workers", "3", "--gpus", "2", "--queue", "night", "--image", "shop/m:1", "--namespace", "recs"];
    let [config, submit, train] = rendered(JOB, &options).unwrap().try_into().unwrap();
    let names = [&config, &submit, &train].map(|m| at(m, "/metadata/name").as_str().unwrap().to_owned());
    let digest = names[0].strip_prefix("job-films-of-2026-").unwrap().to_owned();
    assert_eq!(names, ["job", "submit", "train"].map(|what| format!("{what}-films-of-2026-{digest}")));
    let others = rendered(&JOB.replace("slices = 4", "slices = 3"), &options).unwrap();
    assert_ne!(at(&others[0], "/metadata/name"), names[0].as_str(), "another job is another object");
    assert!([&config, &submit, &train].iter().all(|m| at(m, "/metadata/namespace") == "recs"));
    let sent = Job::parse("job.toml", at(&config, "/data/job.toml").as_str().unwrap(), &[]).unwrap();
    assert_eq!(
        (format!("job-{}", sent.name), sent.dataset.path.as_str()),
        (names[0].clone(), "/inputs/ml-latest-small")
    );
    assert_eq!(at(&submit, "/spec/template/spec/volumes/0/configMap/name"), names[0].as_str());
    assert_eq!((at(&train, "/spec/completions"), at(&train, "/spec/parallelism")), (&json!(3), &json!(3)));
    assert_eq!(at(&train, "/spec/suspend"), true);
    assert_eq!(at(&train, "/metadata/labels/kueue.x-k8s.io~1queue-name"), "night");
    let worker = at(&train, "/spec/template/spec/containers/0");
    assert_eq!(
        (at(worker, "/image"), at(worker, "/resources/limits/nvidia.com~1gpu")),
        (&json!("shop/m:1"), &json!("2"))
    );
    let args = at(worker, "/args").as_array().unwrap();
    assert!(
        args.contains(&json!(format!("--job={}", sent.name))) && args.contains(&json!("--devices=cuda")),
        "{args:?}"
    );
}

#[test]
fn without_cards_nothing_of_them_is_asked_for() {
    let [_, _, train] = rendered(JOB, &["--workers", "1", "--gpus", "0"]).unwrap().try_into().unwrap();
    assert!(!train.to_string().contains("nvidia"), "{train:#}");
    assert!(at(&train, "/spec/template/spec/containers/0/args").as_array().unwrap().contains(&json!("--devices=cpu")));
    assert!(train.pointer("/spec/suspend").is_none());
}

#[test]
fn keys_of_a_bucket_and_labels_of_an_identity_reach_the_pods_that_train() {
    let options = ["--workers", "1", "--secret", "bucket", "--secret", "proxy", "--label", "cloud.example/use=true"];
    let [_, submit, train] = rendered(JOB, &options).unwrap().try_into().unwrap();
    let variables = at(&train, "/spec/template/spec/containers/0/envFrom");
    assert_eq!(at(variables, "/0/configMapRef/name"), "mllm4rec");
    assert_eq!([at(variables, "/1/secretRef/name"), at(variables, "/2/secretRef/name")], ["bucket", "proxy"]);
    assert_eq!(at(&train, "/spec/template/metadata/labels/cloud.example~1use"), "true");
    assert!(!submit.to_string().contains("secretRef") && !submit.to_string().contains("cloud.example"), "{submit:#}");
    for taken in ["app.kubernetes.io/component=x", "app.kubernetes.io/name=x", "cloud.example/use=false"] {
        let refused = rendered(JOB, &[&options[..], &["--label", taken]].concat()).unwrap_err();
        assert!(refused.to_string().contains("the pods have one of that name"), "{refused}");
    }
}

#[test]
fn files_that_the_pods_do_not_see_are_named() {
    let said = |path: &str, is_written| {
        out_of_sight(&NamedFile { key: "dataset.path".to_owned(), path: path.to_owned(), is_written })
    };
    for seen in ["/inputs/log.csv", "file:///inputs/log.csv", "s3://bucket/log.csv"] {
        assert_eq!(said(seen, false), None);
    }
    for unseen in ["/data/log.csv", "file:///data/log.csv"] {
        assert!(said(unseen, false).unwrap().contains(&format!("dataset.path = {unseen} is not below /inputs")));
    }
    assert!(said("/inputs/rankings", true).unwrap().contains("name a URL"));
    assert_eq!(said("s3://bucket/rankings", true), None);
}

#[test]
fn what_pods_could_not_do_is_refused() {
    let refused = |job: &str| format!("{:#}", rendered(job, &["--workers", "1"]).unwrap_err());
    let relative = refused(&JOB.replace("/inputs/llama", "models/llama"));
    assert!(relative.contains("ranker.base must be a path that the pods see"), "{relative}");
    let idle = refused(&JOB.replace("[dataset]", "stages = [\"prepare\"]\n[dataset]"));
    assert!(idle.contains("the job trains nothing"), "{idle}");
    let nameless = refused(&JOB.replace("Films_of.2026", "__"));
    assert!(nameless.contains("leaves no name"), "{nameless}");
}

#[test]
fn names_are_labels() {
    for (name, expected) in
        [("Shop", "shop"), ("a.b_c-d", "a-b-c-d"), ("x".repeat(90).as_str(), "x".repeat(32).as_str())]
    {
        assert_eq!(label(name).unwrap(), expected);
    }
}
