//! The files that a job names, and where they are looked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data::job::Job;

/// The keys that name files, in the sections that have them.
const PATHS: [(&str, &str); 8] = [
    ("dataset", "path"),
    ("captions", "table"),
    ("captions", "model"),
    ("captions", "images"),
    ("retriever", "from"),
    ("ranker", "from"),
    ("ranker", "base"),
    (PUBLISH.0, PUBLISH.1),
];
/// The one that is written, by the coordinator.
const PUBLISH: (&str, &str) = ("output", "publish");

/// A key of a job and the path or URL that it names.
pub(crate) struct NamedFile {
    pub(crate) key: String,
    pub(crate) path: String,
    /// Whether it is written, and not read.
    pub(crate) is_written: bool,
}

impl NamedFile {
    /// The path, if it is one of a machine's file system.
    pub(crate) fn local(&self) -> Option<&Path> {
        local(&self.path)
    }

    /// The key and the path as the job file has them.
    pub(crate) fn setting(&self) -> String {
        format!("{} = {}", self.key, self.path)
    }
}

/// The files that a job names.
pub(crate) fn named_files(job: &Job) -> Result<Vec<NamedFile>> {
    let table: toml::Table = job.to_toml().parse().context("a checked job is no TOML")?;
    let named = PATHS.iter().filter_map(|(section, key)| {
        let path = table.get(*section)?.get(*key)?.as_str()?.to_owned();
        let is_written = (*section, *key) == PUBLISH;
        is_file(&path).then(|| NamedFile { key: format!("{section}.{key}"), path, is_written })
    });
    Ok(named.collect())
}

/// The job as TOML whose paths mean the same wherever they are read.
pub(crate) fn absolute(job: &Job, here: &Path) -> Result<String> {
    let mut table: toml::Table = job.to_toml().parse().context("a checked job is no TOML")?;
    for (section, key) in PATHS {
        if let Some(toml::Value::String(path)) = table.get_mut(section).and_then(|s| s.get_mut(key))
            && is_file(path)
            && let Some(local) = relative(path)
        {
            *path = here.join(local).to_str().context("the path of this folder is not UTF-8")?.to_owned();
        }
    }
    Ok(table.to_string())
}

/// The path that is meant from where the command runs, if it is one.
pub(crate) fn relative(path: &str) -> Option<PathBuf> {
    let local = local(path).filter(|path| path.is_relative())?;
    // `./x` without the point: the path goes into messages.
    Some(local.strip_prefix(".").unwrap_or(local).to_owned())
}

/// The path that is meant in the file system of whoever reads it, if it is one.
fn local(path: &str) -> Option<&Path> {
    let local = match path.strip_prefix("file://") {
        Some(rest) => rest,
        None if path.contains("://") => return None,
        None => path,
    };
    (!path.is_empty()).then(|| Path::new(local))
}

/// Whether it is a path or URL, and not where else models may come from.
fn is_file(path: &str) -> bool {
    !path.is_empty() && path != "train" && !path.starts_with("job:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = r#"
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
        [output]
        publish = "file:///rankings/{split}"
    "#;

    #[test]
    fn paths_of_a_job_mean_the_same_everywhere() -> Result<()> {
        let job = Job::parse("job.toml", JOB, &[])?;
        let sent = Job::parse("job", &absolute(&job, Path::new("/home/ada"))?, &[])?;
        assert_eq!(sent.dataset.path, "/home/ada/data/log.csv");
        assert_eq!(sent.captions.model, "/home/ada/models/captioner");
        assert_eq!(sent.captions.images, "s3://bucket/pictures");
        assert_eq!(sent.ranker.base, "/models/llama");
        assert_eq!(sent.captions.table, "", "what is not set stays so");
        Ok(())
    }

    #[test]
    fn files_are_those_of_a_file_system_or_a_store() -> Result<()> {
        let files = named_files(&Job::parse("job.toml", JOB, &[])?)?;
        let seen: Vec<_> =
            files.iter().map(|f| (f.key.as_str(), f.local().map(Path::to_path_buf), f.is_written)).collect();
        let local = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            seen,
            [
                ("dataset.path", local("data/log.csv"), false),
                ("captions.model", local("./models/captioner"), false),
                ("captions.images", None, false),
                ("ranker.base", local("/models/llama"), false),
                ("output.publish", local("/rankings/{split}"), true),
            ]
        );
        Ok(())
    }
}
