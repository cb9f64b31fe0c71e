//! What bad input cost.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// A row of the input that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The file it stands in.
    pub file: String,
    /// Its line or row, from 1, where it has one.
    pub line: Option<u64>,
    /// Why, in words that many rows share.
    pub reason: String,
}

impl Row for RejectedRow {
    const TABLE: Table = Table::Rejected;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("file", DataType::Utf8),
            build::optional("line", DataType::Int64),
            build::required("reason", DataType::Utf8),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.file.as_str())),
            build::optional_int64s::<Self>("line", rows.iter().map(|r| r.line))?,
            build::strings(rows.iter().map(|r| r.reason.as_str())),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (files, lines) = (columns.strings("file")?, columns.optional_u64s("line")?);
        let reasons = columns.strings("reason")?;
        let row =
            |i: usize| Self { file: files.value(i).to_owned(), line: lines[i], reason: reasons.value(i).to_owned() };
        Ok((0..columns.rows()).map(row).collect())
    }
}
