//! One mistake in a job file, said so that it can be mended.

use std::fmt;

/// What is wrong with one key of a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `--set` for an override.
    pub file: String,
    /// The line of the key, where it stands in the file.
    pub line: Option<usize>,
    /// The key with its sections, `retriever.dropout`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The name in `known` that `given` was probably meant to be.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(given.len()) / 3)
        .min_by_key(|(distance, name)| (*distance, *name))
        .map(|(_, name)| name)
}
