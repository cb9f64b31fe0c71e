//! Where the held-out item stands.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::job::Split;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// The rank of a user's held-out item in the whole catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRankRow {
    /// The user.
    pub user_id: String,
    /// Which item is held out.
    pub split: Split,
    /// 1 + the unseen items scored higher + those scored equal with a smaller id.
    pub rank: u32,
}

impl Row for TargetRankRow {
    const TABLE: Table = Table::TargetRanks;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("user_id", DataType::Utf8),
            build::required("split", DataType::Utf8),
            build::required("rank", DataType::Int32),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.user_id.as_str())),
            build::strings(rows.iter().map(|r| r.split.as_str())),
            build::int32s::<Self>("rank", rows.iter().map(|r| r.rank))?,
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (users, split, rank) = (columns.strings("user_id")?, columns.parsed("split")?, columns.u32s("rank")?);
        let row = |i: usize| Self { user_id: users.value(i).to_owned(), split: split[i], rank: rank[i] };
        Ok((0..columns.rows()).map(row).collect())
    }
}
