//! What the retriever proposes.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::job::Split;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// The unseen items that the retriever scores highest for a user.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateRow {
    /// The user.
    pub user_id: String,
    /// Whose history it was scored with.
    pub split: Split,
    /// Length of the prefix of the training sequence; only in the train split.
    pub position: Option<u32>,
    /// The items, best first.
    pub items: Vec<String>,
    /// Their scores.
    pub scores: Vec<f32>,
}

impl Row for CandidateRow {
    const TABLE: Table = Table::Candidates;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("user_id", DataType::Utf8),
            build::required("split", DataType::Utf8),
            build::optional("position", DataType::Int32),
            build::list_of("items", DataType::Utf8),
            build::list_of("scores", DataType::Float32),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.user_id.as_str())),
            build::strings(rows.iter().map(|r| r.split.as_str())),
            build::optional_int32s::<Self>("position", rows.iter().map(|r| r.position))?,
            build::string_lists(rows.iter().map(|r| r.items.as_slice()))?,
            build::float32_lists(rows.iter().map(|r| r.scores.as_slice()))?,
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (users, split) = (columns.strings("user_id")?, columns.parsed("split")?);
        let position = columns.optional_u32s("position")?;
        let (items, scores) = (columns.string_lists("items")?, columns.float32_lists("scores")?);
        let row = |i: usize| Self {
            user_id: users.value(i).to_owned(),
            split: split[i],
            position: position[i],
            items: items.row(i),
            scores: scores.row(i),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
