//! Which files of `dataset.path` are read: found by name, so that a downloaded folder works as it is.

use std::path::{Path, PathBuf};

use crate::input::{InputFile, stem};
use crate::job::{Dataset, Format};
use crate::{Error, Result};

/// The files of one dataset by what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Who used what, in name order; only `table` has more than one.
    pub(crate) interactions: Vec<InputFile>,
    /// Titles and images, where the format has a file for them.
    pub(crate) items: Option<InputFile>,
}

/// The files that [`prepare`](super::prepare) reads for a dataset, in a fixed order: their content is what the stage's
/// digest depends on.
///
/// # Errors
/// [`Error::MissingInput`] or [`Error::AmbiguousInput`] naming `dataset.path`, what was looked for and what is there.
pub fn input_files(dataset: &Dataset) -> Result<Vec<InputFile>> {
    let Inputs { mut interactions, items } = Inputs::find(dataset)?;
    interactions.extend(items);
    Ok(interactions)
}

/// File names of one kind, `*` for any text; a `.gz` behind them is always allowed.
struct Kind {
    what: &'static str,
    patterns: &'static [&'static str],
    except: &'static [&'static str],
}

const TABLES: Kind = Kind { what: "interactions", patterns: &["*.parquet", "*.csv", "*.tsv"], except: &["_*", ".*"] };

fn kinds(format: Format) -> (Kind, Option<Kind>) {
    let interactions = |patterns, except| Kind { what: "interactions", patterns, except };
    let items = |patterns| Some(Kind { what: "items with titles", patterns, except: &[] });
    match format {
        Format::Movielens => (interactions(&["ratings.csv"], &[]), items(&["movies.csv"])),
        Format::Amazon2014 => {
            (interactions(&["ratings_*.csv", "ratings.csv"], &[]), items(&["meta_*.json", "metadata.json"]))
        }
        Format::Amazon2018 => {
            (interactions(&["*.json", "*.jsonl"], &["meta*"]), items(&["meta_*.json", "meta_*.jsonl", "metadata.json"]))
        }
        Format::Amazon2023 => (
            interactions(&["*.jsonl", "*.json"], &["meta*"]),
            items(&["meta_*.jsonl", "meta_*.json", "metadata.jsonl"]),
        ),
        Format::Sequences => (
            interactions(&["user_sequence.txt", "sequences.txt", "*sequence*.txt", "*sequence*.tsv"], &[]),
            items(&["titles.tsv"]),
        ),
        Format::Table => (TABLES, None),
    }
}

impl Inputs {
    /// Looks for the files of a dataset.
    pub(crate) fn find(dataset: &Dataset) -> Result<Self> {
        let path = local_path(&dataset.path)?;
        let (interactions, items) = kinds(dataset.format);
        let is_file = path.is_file();
        let folder = if is_file { path.parent().unwrap_or(Path::new("")).to_path_buf() } else { path.clone() };
        let listing = Listing::of(&folder, &dataset.path)?;
        let interactions = match (is_file, dataset.format) {
            (true, _) => vec![InputFile::new(&path)],
            (false, Format::Table) => listing.tables(&interactions)?,
            (false, _) => vec![listing.one(&interactions, None)?],
        };
        let items = match items {
            None => None,
            Some(kind) if dataset.format == Format::Sequences => {
                if listing.matching(&kind).is_empty() {
                    None
                } else {
                    Some(listing.one(&kind, None)?)
                }
            }
            Some(kind) => Some(listing.one(&kind, interactions.first().map(|f| f.name.as_str()))?),
        };
        Ok(Self { interactions, items })
    }
}

fn local_path(path: &str) -> Result<PathBuf> {
    let local = match path.split_once("://") {
        None => PathBuf::from(path),
        Some(("file", rest)) => PathBuf::from(rest),
        Some((scheme, _)) => {
            let reason = format!("`dataset.path` with {scheme}:// is not read yet: copy the files to a local folder");
            return Err(Error::Read { path: path.to_owned(), reason });
        }
    };
    match std::fs::metadata(&local) {
        Ok(_) => Ok(local),
        Err(e) => Err(Error::Read { path: path.to_owned(), reason: format!("{e}; is `dataset.path` right?") }),
    }
}

/// The files of one folder, sorted by name.
struct Listing<'a> {
    key: &'a str,
    files: Vec<InputFile>,
}

impl<'a> Listing<'a> {
    fn of(folder: &Path, key: &'a str) -> Result<Self> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = std::fs::read_dir(folder).map_err(|e| Error::read(folder, &e))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::read(folder, &e))?.path();
            if path.is_file() {
                files.push(InputFile::new(&path));
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { key, files })
    }

    /// The files that match the first pattern that any file matches.
    fn matching(&self, kind: &Kind) -> Vec<InputFile> {
        let by = |pattern: &&str| -> Vec<InputFile> {
            let fits =
                |f: &&InputFile| matches(pattern, stem(&f.name)) && !kind.except.iter().any(|e| matches(e, &f.name));
            self.files.iter().filter(fits).cloned().collect()
        };
        kind.patterns.iter().map(by).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The one file of a kind; among several, the one of the same category as `beside`.
    fn one(&self, kind: &Kind, beside: Option<&str>) -> Result<InputFile> {
        let mut found = self.matching(kind);
        if let (Some(beside), true) = (beside, found.len() > 1) {
            let wanted = category(beside);
            found.retain(|f| category(&f.name) == wanted);
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(self.missing(kind)),
            several => Err(Error::AmbiguousInput {
                path: self.key.to_owned(),
                what: kind.what,
                found: several.iter().map(|f| f.name.clone()).collect(),
            }),
        }
    }

    /// All tables of a folder, which must be of one kind.
    fn tables(&self, kind: &Kind) -> Result<Vec<InputFile>> {
        let fits = |f: &&InputFile| {
            kind.patterns.iter().any(|p| matches(p, stem(&f.name))) && !kind.except.iter().any(|e| matches(e, &f.name))
        };
        let all: Vec<InputFile> = self.files.iter().filter(fits).cloned().collect();
        let first = self.matching(kind);
        if all.is_empty() {
            return Err(self.missing(kind));
        }
        if all.len() > first.len() {
            let found = all.into_iter().map(|f| f.name).collect();
            return Err(Error::AmbiguousInput { path: self.key.to_owned(), what: kind.what, found });
        }
        Ok(first)
    }

    fn missing(&self, kind: &Kind) -> Error {
        Error::MissingInput {
            path: self.key.to_owned(),
            what: kind.what,
            looked_for: kind.patterns.join(", "),
            found: self.files.iter().map(|f| f.name.clone()).collect(),
        }
    }
}

/// `Beauty` of `ratings_Beauty.csv`, `meta_Beauty.json.gz`, `reviews_Beauty_5.json`.
fn category(name: &str) -> &str {
    let name = stem(name);
    let name = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let name = ["ratings_", "reviews_", "meta_"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    name.strip_suffix("_5").unwrap_or(name)
}

/// Whether a name fits a pattern in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            let Some(rest) = name.strip_prefix(head) else { return false };
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }
    }
}
