//! The recommendations.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::job::Split;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// A user's candidates in the ranker's order. The lists are equally long.
#[derive(Clone, Debug, PartialEq)]
pub struct RankingRow {
    /// The user.
    pub user_id: String,
    /// Whose history it was ranked with.
    pub split: Split,
    /// The items, best first.
    pub items: Vec<String>,
    /// The logit of each item's letter.
    pub scores: Vec<f32>,
    /// The softmax of the logits over the candidates.
    pub probabilities: Vec<f32>,
    /// Where the retriever had each item, from 1.
    pub retriever_ranks: Vec<u32>,
}

impl Row for RankingRow {
    const TABLE: Table = Table::Rankings;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("user_id", DataType::Utf8),
            build::required("split", DataType::Utf8),
            build::list_of("items", DataType::Utf8),
            build::list_of("scores", DataType::Float32),
            build::list_of("probabilities", DataType::Float32),
            build::list_of("retriever_ranks", DataType::Int32),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        let ranks = rows.iter().map(|r| r.retriever_ranks.as_slice());
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.user_id.as_str())),
            build::strings(rows.iter().map(|r| r.split.as_str())),
            build::string_lists(rows.iter().map(|r| r.items.as_slice()))?,
            build::float32_lists(rows.iter().map(|r| r.scores.as_slice()))?,
            build::float32_lists(rows.iter().map(|r| r.probabilities.as_slice()))?,
            build::int32_lists::<Self>("retriever_ranks", ranks)?,
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (users, split) = (columns.strings("user_id")?, columns.parsed("split")?);
        let (items, scores) = (columns.string_lists("items")?, columns.float32_lists("scores")?);
        let probabilities = columns.float32_lists("probabilities")?;
        let mut ranks = columns.u32_lists("retriever_ranks")?;
        let row = |i: usize| Self {
            user_id: users.value(i).to_owned(),
            split: split[i],
            items: items.row(i),
            scores: scores.row(i),
            probabilities: probabilities.row(i),
            retriever_ranks: std::mem::take(&mut ranks[i]),
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
