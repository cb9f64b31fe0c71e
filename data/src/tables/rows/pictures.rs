//! Where pictures lie and what they hold.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::CaptionStatus;
use crate::Result;
use crate::tables::columns::{Columns, text};
use crate::tables::{Row, Table, build};

/// An item's picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureRow {
    /// The item.
    pub item_id: String,
    /// Path below the folder of pictures, or the URL that it was downloaded from.
    pub location: Option<String>,
    /// Content hash, of what was read.
    pub image_sha256: Option<String>,
    /// Size of the file.
    pub bytes: Option<u64>,
    /// `ok` if there is something to describe.
    pub status: CaptionStatus,
    /// Why there is not: a short code, then a sentence.
    pub reason: Option<String>,
}

impl Row for PictureRow {
    const TABLE: Table = Table::Pictures;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("item_id", DataType::Utf8),
            build::optional("location", DataType::Utf8),
            build::optional("image_sha256", DataType::Utf8),
            build::optional("bytes", DataType::Int64),
            build::required("status", DataType::Utf8),
            build::optional("reason", DataType::Utf8),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.item_id.as_str())),
            build::optional_strings(rows.iter().map(|r| r.location.as_deref())),
            build::optional_strings(rows.iter().map(|r| r.image_sha256.as_deref())),
            build::optional_int64s::<Self>("bytes", rows.iter().map(|r| r.bytes))?,
            build::strings(rows.iter().map(|r| r.status.as_str())),
            build::optional_strings(rows.iter().map(|r| r.reason.as_deref())),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (items, status) = (columns.strings("item_id")?, columns.parsed("status")?);
        let (locations, hashes) = (columns.optional_strings("location")?, columns.optional_strings("image_sha256")?);
        let (bytes, reasons) = (columns.optional_u64s("bytes")?, columns.optional_strings("reason")?);
        let row = |i: usize| Self {
            item_id: items.value(i).to_owned(),
            location: text(locations, i),
            image_sha256: text(hashes, i),
            bytes: bytes[i],
            status: status[i],
            reason: text(reasons, i),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
