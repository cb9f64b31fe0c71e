//! Pictures in words.

use std::str::FromStr;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::job::UnknownName;
use crate::tables::columns::{Columns, text};
use crate::tables::{Row, Table, build};

/// How a caption came about, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionStatus {
    /// There is one.
    Ok,
    /// There is no picture, or no caption in the user's file.
    Missing,
    /// The picture cannot be decoded.
    Undecodable,
    /// The picture is a known stand-in for "no picture".
    Placeholder,
    /// The picture has more bytes or pixels than is safe to decode.
    TooLarge,
}

impl CaptionStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Missing, Self::Undecodable, Self::Placeholder, Self::TooLarge];

    /// The value in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Undecodable => "undecodable",
            Self::Placeholder => "placeholder",
            Self::TooLarge => "too_large",
        }
    }
}

impl FromStr for CaptionStatus {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| UnknownName(s.to_owned()))
    }
}

/// An item's caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionRow {
    /// The item.
    pub item_id: String,
    /// What its picture shows; empty unless the status is `ok`.
    pub caption: String,
    /// How it came about.
    pub status: CaptionStatus,
    /// Why there is none: a short code, then a sentence.
    pub reason: Option<String>,
    /// Content hash of the picture, where there is one.
    pub image_sha256: Option<String>,
    /// The model that wrote it, where one did.
    pub model: Option<String>,
}

impl Row for CaptionRow {
    const TABLE: Table = Table::Captions;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("item_id", DataType::Utf8),
            build::required("caption", DataType::Utf8),
            build::required("status", DataType::Utf8),
            build::optional("reason", DataType::Utf8),
            build::optional("image_sha256", DataType::Utf8),
            build::optional("model", DataType::Utf8),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.item_id.as_str())),
            build::strings(rows.iter().map(|r| r.caption.as_str())),
            build::strings(rows.iter().map(|r| r.status.as_str())),
            build::optional_strings(rows.iter().map(|r| r.reason.as_deref())),
            build::optional_strings(rows.iter().map(|r| r.image_sha256.as_deref())),
            build::optional_strings(rows.iter().map(|r| r.model.as_deref())),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (items, captions) = (columns.strings("item_id")?, columns.strings("caption")?);
        let status = columns.parsed("status")?;
        let reasons = columns.optional_strings("reason")?;
        let (hashes, models) = (columns.optional_strings("image_sha256")?, columns.optional_strings("model")?);
        let row = |i| Self {
            item_id: items.value(i).to_owned(),
            caption: captions.value(i).to_owned(),
            status: status[i],
            reason: text(reasons, i),
            image_sha256: text(hashes, i),
            model: text(models, i),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
