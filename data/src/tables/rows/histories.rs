//! What every user did.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// A user's interactions in time order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The user.
    pub user_id: String,
    /// The items, oldest first.
    pub items: Vec<String>,
    /// When each was, in microseconds since 1970 (UTC); places in the sequence where the data has no times.
    pub times: Vec<i64>,
}

impl Row for HistoryRow {
    const TABLE: Table = Table::Histories;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("user_id", DataType::Utf8),
            build::list_of("items", DataType::Utf8),
            build::list_of("times", build::instant()),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.user_id.as_str())),
            build::string_lists(rows.iter().map(|r| r.items.as_slice()))?,
            build::instant_lists(rows.iter().map(|r| r.times.as_slice()))?,
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let users = columns.strings("user_id")?;
        let (items, times) = (columns.string_lists("items")?, columns.instant_lists("times")?);
        let row = |i| Self { user_id: users.value(i).to_owned(), items: items.row(i), times: times.row(i) };
        Ok((0..columns.rows()).map(row).collect())
    }
}
