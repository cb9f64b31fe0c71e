//! The catalogue.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::tables::columns::{Columns, text};
use crate::tables::{Row, Table, build};

/// An item of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRow {
    /// Its id, as the user gave it.
    pub item_id: String,
    /// Its title.
    pub title: String,
    /// Where its picture is, if it has one.
    pub image: Option<String>,
    /// Anything else that is known, as a JSON object.
    pub attributes: String,
}

impl Row for ItemRow {
    const TABLE: Table = Table::Items;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("item_id", DataType::Utf8),
            build::required("title", DataType::Utf8),
            build::optional("image", DataType::Utf8),
            build::required("attributes", DataType::Utf8),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.item_id.as_str())),
            build::strings(rows.iter().map(|r| r.title.as_str())),
            build::optional_strings(rows.iter().map(|r| r.image.as_deref())),
            build::strings(rows.iter().map(|r| r.attributes.as_str())),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (ids, titles) = (columns.strings("item_id")?, columns.strings("title")?);
        let (images, attributes) = (columns.optional_strings("image")?, columns.strings("attributes")?);
        let row = |i| Self {
            item_id: ids.value(i).to_owned(),
            title: titles.value(i).to_owned(),
            image: text(images, i),
            attributes: attributes.value(i).to_owned(),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
