//! From the URL that a user writes to a store.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use url::Url;

use super::{Store, cloud};
use crate::{Error, Result};

const ALLOWED: &str = "allowed are a folder, file:///absolute/path, file://./relative/path, s3://bucket/prefix, \
                       gs://bucket/prefix and az://container/prefix";

/// Where a URL points.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder or file of this machine.
    Local(PathBuf),
    /// An object, or a prefix of objects, of a cloud store.
    Cloud(Url),
}

impl Location {
    /// Reads a URL or a plain path.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::StoreUrl { url: url.to_owned(), reason: format!("{reason}; {ALLOWED}") };
        if let Some(rest) = url.strip_prefix("file://") {
            return match rest {
                "." | ".." => Ok(Self::Local(rest.into())),
                _ if rest.starts_with("./") || rest.starts_with("../") => Ok(Self::Local(rest.into())),
                _ if rest.starts_with('/') => absolute(url).map(Self::Local).ok_or_else(|| wrong("not a path")),
                _ => Err(wrong("it names a machine")),
            };
        }
        if !url.contains("://") {
            return if url.is_empty() { Err(wrong("it is empty")) } else { Ok(Self::Local(url.into())) };
        }
        let parsed = Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
        match parsed.scheme() {
            "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" if parsed.host_str().is_none() => {
                Err(wrong("it names no bucket"))
            }
            "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" => Ok(Self::Cloud(parsed)),
            other => Err(wrong(&format!("`{other}` is not a kind of store"))),
        }
    }
}

pub(super) fn open(url: &str, make: bool, variables: Vec<(String, String)>) -> Result<Store> {
    let wrong = |reason: String| Error::StoreUrl { url: url.to_owned(), reason };
    let name = url.trim_end_matches('/').to_owned();
    match Location::parse(url)? {
        Location::Local(path) => {
            if make {
                std::fs::create_dir_all(&path).map_err(|e| wrong(format!("cannot make the folder: {e}")))?;
            }
            let folder = path
                .canonicalize()
                .map_err(|e| wrong(format!("{e}; a relative path begins where the program was started")))?;
            if !folder.is_dir() {
                return Err(wrong("it is a file, not a folder".to_owned()));
            }
            let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|e| wrong(e.to_string()))?;
            let store = Store::over(Arc::new(objects), &name);
            Ok(Store { folder: Some(folder), ..store })
        }
        Location::Cloud(parsed) => {
            let (objects, prefix) = cloud::connect(&parsed, variables).map_err(wrong)?;
            Ok(Store { prefix, ..Store::over(objects, &name) })
        }
    }
}

fn absolute(url: &str) -> Option<PathBuf> {
    Url::parse(url).ok()?.to_file_path().ok()
}

/// The environment variables by which clouds identify a caller and name their endpoints. Nothing else is read from
/// the environment.
pub(super) fn identity() -> Vec<(String, String)> {
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
    };
    let ours = |(name, _): &(String, String)| ["aws_", "google_", "azure_"].iter().any(|p| name.starts_with(p));
    std::env::vars_os().filter_map(pair).filter(ours).collect()
}
