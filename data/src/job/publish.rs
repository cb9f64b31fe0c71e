//! `output.publish`: where finished tables are copied, with placeholders.

use std::path::{Path, PathBuf};

use super::Split;
use crate::store::{Location, Store};

/// The placeholders that a place may have.
const KNOWN: [&str; 4] = ["job", "name", "date", "split"];

/// Folders of a root that are this program's own.
const OWN: [&str; 4] = ["tables", "models", "jobs", "_control"];

/// The URL of `output.publish`, its placeholders not yet filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

/// What fills the placeholders.
#[derive(Clone, Copy, Debug)]
pub struct Fill<'a> {
    /// `{job}`: the job's id.
    pub job: &'a str,
    /// `{name}`: the job's name.
    pub name: &'a str,
    /// `{date}`: the day of the submission, `2026-11-29`.
    pub date: &'a str,
}

impl Place {
    /// Reads a place; the error says what is wrong and what is allowed.
    pub(super) fn parse(url: &str, root: &str) -> Result<Self, String> {
        let mut rest = url;
        while let Some(at) = rest.find(['{', '}']) {
            let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let known = KNOWN.map(|name| format!("{{{name}}}")).join(", ");
            match inner {
                Some((name, behind)) if KNOWN.contains(&name) => rest = behind,
                Some((name, _)) => return Err(format!("`{{{name}}}` is not a placeholder; there are {known}")),
                None => return Err(format!("has a brace without its other half; placeholders are {known}")),
            }
        }
        let place = Self(url.trim_end_matches('/').to_owned());
        if place.0.ends_with(':') || place.0.is_empty() {
            return Err(format!("is `{url}`, which names no folder"));
        }
        let example = place.folder(Fill { job: "job-0", name: "job", date: "2000-01-01" }, Split::Test, false);
        Location::parse(&example).map_err(|e| e.to_string())?;
        if is_own(below(&example, root).as_deref()) {
            return Err("is where the job keeps its own tables (`output.root`): choose a folder of its own".to_owned());
        }
        Ok(place)
    }

    /// Whether one of its folders is the root of a store, or one below it that this program writes. The root of a job file
    /// is known when it is read; a coordinator has another one, and local folders have several names.
    #[must_use]
    pub fn is_in(folder: &str, store: &Store) -> bool {
        match (Location::parse(folder), store.folder()) {
            (Ok(Location::Local(path)), Some(root)) => {
                let path = resolved(&path);
                let below = path.strip_prefix(root).ok();
                is_own(below.map(|below| below.to_string_lossy().into_owned()).as_deref())
            }
            (Ok(Location::Cloud(_)), None) => is_own(below(folder, store.url()).as_deref()),
            _ => false,
        }
    }

    /// The URL of one table. Without `{split}`, a job with several splits gets a folder below for each.
    #[must_use]
    pub fn folder(&self, fill: Fill<'_>, split: Split, several: bool) -> String {
        let filled = self.0.replace("{job}", fill.job).replace("{name}", fill.name).replace("{date}", fill.date);
        if several && !filled.contains("{split}") {
            return format!("{filled}/{split}");
        }
        filled.replace("{split}", split.as_str())
    }

    /// Whether it names the day.
    #[must_use]
    pub fn is_daily(&self) -> bool {
        self.0.contains("{date}")
    }
}

/// What a URL has behind that of a root, if it begins with it.
fn below(url: &str, root: &str) -> Option<String> {
    let rest = url.strip_prefix(root.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
}

/// Whether that is the root itself, or begins with a folder of this program's own.
fn is_own(below: Option<&str>) -> bool {
    below.is_some_and(|below| {
        let first = below.split('/').next().unwrap_or_default();
        first.is_empty() || OWN.contains(&first)
    })
}

/// A path without links and points, as far as its folders exist.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match there {
        Some((ancestor, real)) => real.join(path.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => path,
    }
}
