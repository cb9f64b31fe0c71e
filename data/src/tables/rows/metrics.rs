//! How good the recommendations are.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::job::Split;
use crate::tables::columns::Columns;
use crate::tables::{Row, Table, build};

/// One figure with its interval.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// Which item was held out.
    pub split: Split,
    /// `overall`, or `subset`: users whose held-out item is among the candidates.
    pub population: String,
    /// `retriever`, `retriever_order` or `ranker`.
    pub system: String,
    /// `recall`, `mrr` or `ndcg`.
    pub metric: String,
    /// The length of the list that counts.
    pub k: u32,
    /// Mean over the users.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// How many users.
    pub users: u64,
}

impl Row for MetricRow {
    const TABLE: Table = Table::Metrics;

    fn schema() -> SchemaRef {
        build::schema([
            build::required("split", DataType::Utf8),
            build::required("population", DataType::Utf8),
            build::required("system", DataType::Utf8),
            build::required("metric", DataType::Utf8),
            build::required("k", DataType::Int32),
            build::required("value", DataType::Float64),
            build::required("low", DataType::Float64),
            build::required("high", DataType::Float64),
            build::required("users", DataType::Int64),
        ])
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch> {
        build::batch::<Self>(vec![
            build::strings(rows.iter().map(|r| r.split.as_str())),
            build::strings(rows.iter().map(|r| r.population.as_str())),
            build::strings(rows.iter().map(|r| r.system.as_str())),
            build::strings(rows.iter().map(|r| r.metric.as_str())),
            build::int32s::<Self>("k", rows.iter().map(|r| r.k))?,
            build::float64s(rows.iter().map(|r| r.value)),
            build::float64s(rows.iter().map(|r| r.low)),
            build::float64s(rows.iter().map(|r| r.high)),
            build::int64s::<Self>("users", rows.iter().map(|r| r.users))?,
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let columns = Columns::of::<Self>(batch);
        let (split, population) = (columns.parsed("split")?, columns.strings("population")?);
        let (system, metric, k) = (columns.strings("system")?, columns.strings("metric")?, columns.u32s("k")?);
        let (value, low) = (columns.float64s("value")?, columns.float64s("low")?);
        let (high, users) = (columns.float64s("high")?, columns.u64s("users")?);
        let row = |i: usize| Self {
            split: split[i],
            population: population.value(i).to_owned(),
            system: system.value(i).to_owned(),
            metric: metric.value(i).to_owned(),
            k: k[i],
            value: value.value(i),
            low: low.value(i),
            high: high.value(i),
            users: users[i],
        };
        Ok((0..columns.rows()).map(row).collect())
    }
}
