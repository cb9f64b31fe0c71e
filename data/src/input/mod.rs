//! Reading what a user brings: files, lines, named columns, and what becomes of the rows that make no sense.

mod columns;
mod lines;
mod rejects;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub(crate) use columns::{Cell, NamedColumn, read_columns};
pub(crate) use lines::{Lines, Reason};
pub(crate) use rejects::Rejects;

/// One file of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in messages and in the `rejected` table, without the folder: the same on every machine.
    pub name: String,
}

impl InputFile {
    pub(crate) fn new(path: &Path) -> Self {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path: path.to_path_buf(), name }
    }
}

/// A name without `.gz`.
pub(crate) fn stem(name: &str) -> &str {
    name.strip_suffix(".gz").unwrap_or(name)
}

/// A text on one line: every run of white space or control characters becomes one space.
///
/// Prompts are laid out by lines, so that a line break inside a title would change what they say.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let is_gap = |c: char| c.is_whitespace() || c.is_control();
    let tidy = !text.chars().any(|c| is_gap(c) && c != ' ') && !text.contains("  ") && text.trim() == text;
    if tidy {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split(is_gap).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" "))
}
