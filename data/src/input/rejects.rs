//! What bad input cost: the rows that could not be used, and the limit on them.

use std::collections::BTreeMap;

use crate::job::MaxRejected;
use crate::tables::RejectedRow;
use crate::{Error, Result};

/// A share of the rows is known only at the end; a file of nothing but garbage should not fill the memory until then.
const CHECK_SHARE_AFTER: usize = 1_000_000;

/// The rejected rows of a stage so far.
#[derive(Debug)]
pub(crate) struct Rejects {
    limit: MaxRejected,
    read: u64,
    rows: Vec<RejectedRow>,
}

impl Rejects {
    pub(crate) fn new(limit: MaxRejected) -> Self {
        Self { limit, read: 0, rows: Vec::new() }
    }

    /// Counts one row that was read, good or bad.
    pub(crate) fn count_row(&mut self) {
        self.read += 1;
    }

    /// How many were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Puts a row aside. Reasons are few and fixed, so that they can be counted.
    ///
    /// # Errors
    /// [`Error::TooManyRejected`] once a limit in rows is passed; a limit by share is checked by [`Self::check`].
    pub(crate) fn reject(&mut self, file: &str, line: Option<u64>, reason: &str) -> Result<()> {
        let (file, reason) = (file.to_owned(), reason.to_owned());
        self.rows.push(RejectedRow { file, line, reason, item_id: None, users: None, user_id: None });
        match self.limit {
            MaxRejected::Rows(_) => self.check(),
            MaxRejected::Share(_) if self.rows.len().is_multiple_of(CHECK_SHARE_AFTER) => self.check(),
            MaxRejected::Share(_) => Ok(()),
        }
    }

    /// Checks the limit.
    ///
    /// # Errors
    /// [`Error::TooManyRejected`] with the counts and the worst reasons.
    pub(crate) fn check(&self) -> Result<()> {
        let rejected = self.rejected();
        if self.limit.allows(rejected, self.read) {
            return Ok(());
        }
        let limit = match self.limit {
            MaxRejected::Rows(rows) => rows.to_string(),
            MaxRejected::Share(share) => format!("{}%", share * 100.0),
        };
        Err(Error::TooManyRejected { rejected, read: self.read, limit, worst: self.worst() })
    }

    /// The rejected rows in a fixed order: by file, line and reason.
    pub(crate) fn into_rows(mut self) -> Vec<RejectedRow> {
        self.rows.sort_by(|a, b| (&a.file, a.line, &a.reason).cmp(&(&b.file, b.line, &b.reason)));
        self.rows
    }

    /// The three most frequent reasons, each with where it was met first.
    fn worst(&self) -> String {
        let mut reasons: BTreeMap<&str, (u64, Vec<&RejectedRow>)> = BTreeMap::new();
        for row in &self.rows {
            let (count, examples) = reasons.entry(&row.reason).or_default();
            *count += 1;
            if examples.len() < 3 {
                examples.push(row);
            }
        }
        let mut worst: Vec<_> = reasons.into_iter().collect();
        worst.sort_by_key(|(reason, (count, _))| (std::cmp::Reverse(*count), *reason));
        let describe = |(reason, (count, examples)): &(&str, (u64, Vec<&RejectedRow>))| {
            let places: Vec<String> = examples.iter().map(|row| place(row)).collect();
            format!("{count} × {reason} ({})", places.join(", "))
        };
        worst.iter().take(3).map(describe).collect::<Vec<_>>().join("; ")
    }
}

fn place(row: &RejectedRow) -> String {
    row.line.map_or_else(|| row.file.clone(), |line| format!("{}:{line}", row.file))
}
