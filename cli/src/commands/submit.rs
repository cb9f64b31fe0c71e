//! `mllm4rec submit`: hands a job to a coordinator.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data::job::Job;
use serde_json::json;

use crate::args::Submit;
use crate::client::Client;
use crate::commands::read_job_for_others;
use crate::terminal::{print, print_error};
use crate::{exit, follow};

/// The keys that name files, in the sections that have them.
const PATHS: [(&str, &str); 8] = [
    ("dataset", "path"),
    ("captions", "table"),
    ("captions", "model"),
    ("captions", "images"),
    ("retriever", "from"),
    ("ranker", "from"),
    ("ranker", "base"),
    ("output", "publish"),
];

/// Submits a job and says what it is called.
pub(crate) async fn run(args: Submit) -> Result<u8> {
    let job = read_job_for_others(&args.config, &args.sets)?;
    let here = std::env::current_dir().context("cannot tell where this command runs")?;
    let toml = absolute(&job, &here)?;
    let mut client = Client::connect(&args.reach).await?;
    let submitted = match client.submit(toml).await {
        Err(refused) if names_local(&refused, &job)? => {
            let url = client.url();
            return Err(refused.context(format!("the coordinator at {url} reads the paths of a job where it runs")));
        }
        submitted => submitted?,
    };
    let (id, complete) = (submitted.job_id, submitted.complete);
    if args.wait {
        return follow::to_the_end(&args.reach, &id, args.json).await;
    }
    if args.json {
        let root = client.info().await?.root;
        print(format_args!("{:#}", json!({"job": id, "complete": complete, "root": root})));
        return Ok(exit::DONE);
    }
    print(&id);
    print_error(match complete {
        true => format!("every stage was done before; `mllm4rec outputs {id}` names the folders"),
        false => format!("submitted; `mllm4rec status {id} --watch` shows how far it is"),
    });
    Ok(exit::DONE)
}

/// The job as TOML whose paths mean the same wherever they are read.
fn absolute(job: &Job, here: &Path) -> Result<String> {
    let mut table: toml::Table = job.to_toml().parse().context("a checked job is no TOML")?;
    for (section, key) in PATHS {
        if let Some(toml::Value::String(path)) = table.get_mut(section).and_then(|s| s.get_mut(key))
            && names_file(path)
            && let Some(local) = relative(path)
        {
            *path = here.join(local).to_str().context("the path of this folder is not UTF-8")?.to_owned();
        }
    }
    Ok(table.to_string())
}

/// A key of a job and the path or URL that it names.
pub(crate) struct NamedPath {
    pub(crate) key: String,
    pub(crate) path: String,
}

/// The files that a job names.
pub(crate) fn paths(job: &Job) -> Result<Vec<NamedPath>> {
    let table: toml::Table = job.to_toml().parse().context("a checked job is no TOML")?;
    let named = PATHS.iter().filter_map(|(section, key)| {
        let path = table.get(*section)?.get(*key)?.as_str()?;
        let is_file = !path.is_empty() && names_file(path);
        is_file.then(|| NamedPath { key: format!("{section}.{key}"), path: path.to_owned() })
    });
    Ok(named.collect())
}

/// Whether an error tells of a file that this machine may well have.
fn names_local(error: &anyhow::Error, job: &Job) -> Result<bool> {
    let words = format!("{error:#}");
    Ok(paths(job)?.iter().any(|named| !named.path.contains("://") && words.contains(&named.path)))
}

/// Whether it is a path or URL, and not where else models may come from.
fn names_file(path: &str) -> bool {
    path != "train" && !path.starts_with("job:")
}

/// The path that is meant from where the command runs, if it is one.
pub(crate) fn relative(path: &str) -> Option<PathBuf> {
    let local = match path.strip_prefix("file://") {
        Some(rest) => rest,
        None if path.contains("://") => return None,
        None => path,
    };
    let local = Path::new(local);
    // `./x` without the point: the path goes into messages.
    (!path.is_empty() && local.is_relative()).then(|| local.strip_prefix(".").unwrap_or(local).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_job_mean_the_same_everywhere() -> Result<()> {
        let text = r#"
            schema_version = 1
            name = "shop"
            [dataset]
            path = "data/log.csv"
            [captions]
            from = "blip2"
            model = "file://./models/captioner"
            images = "s3://bucket/pictures"
            [ranker]
            base = "/models/llama"
        "#;
        let job = Job::parse("job.toml", text, &[])?;
        let sent = Job::parse("job", &absolute(&job, Path::new("/home/ada"))?, &[])?;
        assert_eq!(sent.dataset.path, "/home/ada/data/log.csv");
        assert_eq!(sent.captions.model, "/home/ada/models/captioner");
        assert_eq!(sent.captions.images, "s3://bucket/pictures");
        assert_eq!(sent.ranker.base, "/models/llama");
        assert_eq!(sent.captions.table, "", "what is not set stays so");
        Ok(())
    }
}
