//! Tables: rows in Parquet parts that any reader opens by folder.
//!
//! A table is a flat folder of `part-00000-of-00128.parquet` … and an empty `_SUCCESS`; nothing else. Columns have plain
//! types (strings, signed integers, floats, timestamps, lists of those), since unsigned integers, dictionaries and
//! nested structs are where readers differ. The same rows and the same footer give the same bytes.

mod build;
mod columns;
mod part;
mod reader;
mod rows;
#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

pub use part::{Footer, Summary, decode_part, decode_part_of, encode_part, read_summary};
pub use reader::{Reader, read_all};
pub use rows::{
    CandidateRow, CaptionRow, CaptionStatus, HistoryRow, ItemRow, MetricRow, PictureRow, RankingRow, RejectedRow,
    TargetRankRow,
};

use crate::Result;

/// The tables that stages write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// One row per item of the catalogue.
    Items,
    /// One row per user: the items in time order.
    Histories,
    /// One row per item: where its picture lies and what it holds.
    Pictures,
    /// One row per item: what its picture shows, in words.
    Captions,
    /// One row per user, or per sampled training prefix: what the retriever proposes.
    Candidates,
    /// One row per user with a held-out item: its rank in the whole catalogue.
    TargetRanks,
    /// One row per user: the candidates in the ranker's order.
    Rankings,
    /// One row per measured figure.
    Metrics,
    /// One row per rejected row of the input.
    Rejected,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 9] = [
        Self::Items,
        Self::Histories,
        Self::Pictures,
        Self::Captions,
        Self::Candidates,
        Self::TargetRanks,
        Self::Rankings,
        Self::Metrics,
        Self::Rejected,
    ];

    /// The name of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Histories => "histories",
            Self::Pictures => "pictures",
            Self::Captions => "captions",
            Self::Candidates => "candidates",
            Self::TargetRanks => "target_ranks",
            Self::Rankings => "rankings",
            Self::Metrics => "metrics",
            Self::Rejected => "rejected",
        }
    }
}

/// A row of one table, and how it becomes columns and back.
pub trait Row: Sized + Clone + Send + Sync + 'static {
    /// The table.
    const TABLE: Table;

    /// Its columns.
    fn schema() -> SchemaRef;

    /// Rows to columns.
    ///
    /// # Errors
    /// If a number does not fit into its column.
    fn to_batch(rows: &[Self]) -> Result<RecordBatch>;

    /// Columns to rows. Columns that the table does not have are passed over.
    ///
    /// # Errors
    /// [`crate::Error::Column`] for a column that is missing, of another type, or holds a value that it must not.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>>;
}

/// Name of a part: `part-00000-of-00128.parquet`.
#[must_use]
pub fn part_name(index: u32, of: u32) -> String {
    format!("part-{index:05}-of-{of:05}.parquet")
}

/// The two numbers of a part's name; nothing for any other name.
#[must_use]
pub fn part_name_index(name: &str) -> Option<(u32, u32)> {
    let (index, of) = name.strip_prefix("part-")?.strip_suffix(".parquet")?.split_once("-of-")?;
    let (index, of) = (index.parse().ok()?, of.parse().ok()?);
    (part_name(index, of) == name).then_some((index, of))
}
