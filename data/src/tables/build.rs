//! From the fields of rows to columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::Row;
use crate::{Error, Result};

/// A column that always has a value.
pub(super) fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

/// A column that may have none.
pub(super) fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

/// A list column; neither the list nor its elements are ever null.
pub(super) fn list_of(name: &str, kind: DataType) -> Field {
    Field::new(name, DataType::List(Arc::new(element(kind))), false)
}

/// Microseconds since 1970, in UTC.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn schema<const N: usize>(fields: [Field; N]) -> SchemaRef {
    Arc::new(Schema::new(fields.to_vec()))
}

/// The columns of a row type in the order of its schema.
pub(super) fn batch<R: Row>(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(R::schema(), columns).map_err(|e| too_long::<R>(&e.to_string()))
}

pub(super) fn strings<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn optional_strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn float64s(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// Counts and ranks; stored signed, since readers differ in unsigned integers.
pub(super) fn int32s<R: Row>(column: &str, values: impl Iterator<Item = u32>) -> Result<ArrayRef> {
    let signed: Result<Vec<i32>> = values.map(|v| signed32::<R>(column, v)).collect();
    Ok(Arc::new(Int32Array::from(signed?)))
}

pub(super) fn optional_int32s<R: Row>(column: &str, values: impl Iterator<Item = Option<u32>>) -> Result<ArrayRef> {
    let signed: Result<Vec<Option<i32>>> = values.map(|v| v.map(|v| signed32::<R>(column, v)).transpose()).collect();
    Ok(Arc::new(Int32Array::from(signed?)))
}

pub(super) fn int64s<R: Row>(column: &str, values: impl Iterator<Item = u64>) -> Result<ArrayRef> {
    let signed: Result<Vec<i64>> = values.map(|v| signed64::<R>(column, v)).collect();
    Ok(Arc::new(Int64Array::from(signed?)))
}

pub(super) fn optional_int64s<R: Row>(column: &str, values: impl Iterator<Item = Option<u64>>) -> Result<ArrayRef> {
    let signed: Result<Vec<Option<i64>>> = values.map(|v| v.map(|v| signed64::<R>(column, v)).transpose()).collect();
    Ok(Arc::new(Int64Array::from(signed?)))
}

/// One list of strings per row.
pub(super) fn string_lists<'a>(rows: impl Iterator<Item = &'a [String]> + Clone) -> Result<ArrayRef> {
    let all: Vec<&String> = rows.clone().flatten().collect();
    let values = StringArray::from_iter_values(all);
    list(rows.map(<[String]>::len), Arc::new(values))
}

/// One list of numbers per row.
pub(super) fn float32_lists<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone) -> Result<ArrayRef> {
    let values = Float32Array::from_iter_values(rows.clone().flatten().copied());
    list(rows.map(<[f32]>::len), Arc::new(values))
}

/// One list of ranks per row.
pub(super) fn int32_lists<'a, R: Row>(column: &str, rows: impl Iterator<Item = &'a [u32]> + Clone) -> Result<ArrayRef> {
    let values = int32s::<R>(column, rows.clone().flatten().copied())?;
    list(rows.map(<[u32]>::len), values)
}

/// One list of instants per row.
pub(super) fn instant_lists<'a>(rows: impl Iterator<Item = &'a [i64]> + Clone) -> Result<ArrayRef> {
    let values = TimestampMicrosecondArray::from_iter_values(rows.clone().flatten().copied());
    list(rows.map(<[i64]>::len), Arc::new(values.with_timezone("UTC")))
}

fn list(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(element(values.data_type().clone()));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let list = ListArray::try_new(field, offsets, values, None);
    Ok(Arc::new(list.expect("the offsets are made from the same rows as the values")))
}

/// The name that the Parquet format itself gives to the elements of a list.
fn element(kind: DataType) -> Field {
    Field::new("element", kind, false)
}

fn signed32<R: Row>(column: &str, value: u32) -> Result<i32> {
    i32::try_from(value).map_err(|_| unfit::<R>(column, value.into()))
}

fn signed64<R: Row>(column: &str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| unfit::<R>(column, value))
}

fn unfit<R: Row>(column: &str, value: u64) -> Error {
    Error::Column {
        file: "a new part".into(),
        table: R::TABLE.name(),
        column: column.to_owned(),
        problem: format!("cannot hold {value}"),
    }
}

fn too_long<R: Row>(reason: &str) -> Error {
    Error::Part { file: "a new part".into(), table: R::TABLE.name(), reason: reason.to_owned() }
}
