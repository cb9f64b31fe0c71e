//! What could not be used.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::tables::columns::{Columns, text};
use crate::tables::{Row, Table, build};

/// A row of the input, an item of histories, or a user, that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The file, or the table, that it stands in.
    pub file: String,
    /// Its line or row, from 1, where it has one.
    pub line: Option<u64>,
    /// Why, in words that many rows share.
    pub reason: String,
    /// The item, where it is one that histories name.
    pub item_id: Option<String>,
    /// How many users have that item, of those that the part is of.
    pub users: Option<u64>,
    /// The user, where it is one without a row in the stage's table.
    pub user_id: Option<String>,
}

impl RejectedRow {
    /// A user of the histories who has no row in a stage's table.
    #[must_use]
    pub fn of_user(user_id: String, reason: &str) -> Self {
        let (file, reason) = (Table::Histories.name().to_owned(), reason.to_owned());
        Self { file, line: None, reason, item_id: None, users: None, user_id: Some(user_id) }
    }
}

impl Row for RejectedRow {
    const TABLE: Table = Table::Rejected;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("file", DataType::Utf8),
            build::optional("line", DataType::Int64),
            build::required("reason", DataType::Utf8),
            build::optional("item_id", DataType::Utf8),
            build::optional("users", DataType::Int64),
            build::optional("user_id", DataType::Utf8),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.file.as_str())),
            build::optional_int64s::<Self>("line", rows.iter().map(|r| r.line))?,
            build::strings(rows.iter().map(|r| r.reason.as_str())),
            build::optional_strings(rows.iter().map(|r| r.item_id.as_deref())),
            build::optional_int64s::<Self>("users", rows.iter().map(|r| r.users))?,
            build::optional_strings(rows.iter().map(|r| r.user_id.as_deref())),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (files, lines) = (columns.strings("file")?, columns.optional_u64s("line")?);
        let reasons = columns.strings("reason")?;
        let (items, users) = (columns.optional_strings("item_id")?, columns.optional_u64s("users")?);
        let user_ids = columns.optional_strings("user_id")?;
        let row = |i: usize| Self {
            file: files.value(i).to_owned(),
            line: lines[i],
            reason: reasons.value(i).to_owned(),
            item_id: text(items, i),
            users: users[i],
            user_id: text(user_ids, i),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
