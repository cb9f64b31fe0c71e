//! Reads named columns of a CSV or Parquet file row by row, whatever types they have.

use std::borrow::Cow;
use std::fs::File;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::lines::open;
use super::{InputFile, Reason, stem};
use crate::{Error, Result};

/// A column and the key of the job file that names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedColumn<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a str,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    /// Null, or an empty field of a CSV.
    Missing,
    Text(&'a str),
    Int(i64),
    Float(f64),
    /// A date or timestamp, in microseconds since 1970, UTC.
    Micros(i64),
}

impl<'a> Cell<'a> {
    /// The value as an id or a text; a whole float is written without its fraction, since tables with gaps in a column of
    /// numbers store them that way.
    pub(crate) fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(value) | Self::Micros(value) => Some(Cow::Owned(value.to_string())),
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => {
                Some(Cow::Owned((*value as i64).to_string()))
            }
            Self::Float(value) => Some(Cow::Owned(value.to_string())),
        }
    }
}

/// Takes a row: its line (CSV) or number (Parquet), and its cells or why it has none.
pub(crate) type OnRow<'a> = dyn FnMut(u64, Result<&[Cell<'_>], Reason>) -> Result<()> + 'a;

/// Calls `on_row` with the named columns of every row of a file.
///
/// # Errors
/// [`Error::MissingColumn`] naming the columns that are there; [`Error::Read`] where the file cannot be read on.
pub(crate) fn read_columns(file: &InputFile, columns: &[NamedColumn<'_>], on_row: &mut OnRow<'_>) -> Result<()> {
    let name = stem(&file.name).to_lowercase();
    if name.ends_with(".parquet") || name.ends_with(".pq") {
        read_parquet(file, columns, on_row)
    } else {
        let delimiter = if name.ends_with(".tsv") { b'\t' } else { b',' };
        read_csv(file, delimiter, columns, on_row)
    }
}

fn read_csv(file: &InputFile, delimiter: u8, columns: &[NamedColumn<'_>], on_row: &mut OnRow<'_>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(open(&file.path)?);
    let header = reader.byte_headers().map_err(|e| Error::read(&file.path, &e))?;
    let header: Vec<String> = header.iter().map(header_name).collect();
    let wanted = find(file, columns, &header)?;
    let mut record = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        if !reader.read_byte_record(&mut record).map_err(|e| Error::read(&file.path, &e))? {
            return Ok(());
        }
        let line = record.position().map_or(line, csv::Position::line);
        if record.len() != header.len() {
            on_row(line, Err("wrong number of fields"))?;
            continue;
        }
        let cells: Result<Vec<Cell<'_>>, Reason> = wanted.iter().map(|index| csv_cell(&record[*index])).collect();
        on_row(line, cells.as_deref().map_err(|e| *e))?;
    }
}

fn header_name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).trim().to_owned()
}

fn csv_cell(bytes: &[u8]) -> Result<Cell<'_>, Reason> {
    match std::str::from_utf8(bytes) {
        Ok("") => Ok(Cell::Missing),
        Ok(text) => Ok(Cell::Text(text)),
        Err(_) => Err("not UTF-8"),
    }
}

fn find(file: &InputFile, columns: &[NamedColumn<'_>], present: &[String]) -> Result<Vec<usize>> {
    let index = |column: &NamedColumn<'_>| {
        present.iter().position(|name| name == column.name).ok_or_else(|| Error::MissingColumn {
            file: file.path.display().to_string(),
            column: column.name.to_owned(),
            key: column.key.to_owned(),
            present: present.to_vec(),
        })
    };
    columns.iter().map(index).collect()
}

fn read_parquet(file: &InputFile, columns: &[NamedColumn<'_>], on_row: &mut OnRow<'_>) -> Result<()> {
    let read = |e: &dyn std::fmt::Display| Error::read(&file.path, &e);
    let source = File::open(&file.path).map_err(|e| read(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(source).map_err(|e| read(&e))?;
    let present: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    let wanted = find(file, columns, &present)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let reader = builder.with_projection(mask).build().map_err(|e| read(&e))?;
    let mut number = 0;
    for batch in reader {
        let batch = batch.map_err(|e| read(&e))?;
        let arrays = columns.iter().map(|c| plain_column(file, &batch, c)).collect::<Result<Vec<_>>>()?;
        let mut cells = Vec::with_capacity(columns.len());
        for row in 0..batch.num_rows() {
            number += 1;
            cells.clear();
            cells.extend(arrays.iter().map(|(array, is_time)| parquet_cell(array, *is_time, row)));
            on_row(number, Ok(&cells))?;
        }
    }
    Ok(())
}

/// A column as strings, i64 or f64, and whether it holds timestamps.
fn plain_column(file: &InputFile, batch: &RecordBatch, column: &NamedColumn<'_>) -> Result<(ArrayRef, bool)> {
    let array = batch.column_by_name(column.name).expect("the column was found in the schema and projected");
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let kind = array.data_type();
    let (target, is_time) = match kind {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => (micros, true),
        DataType::UInt64 => (DataType::Utf8, false),
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => (DataType::Float64, false),
        other if other.is_integer() => (DataType::Int64, false),
        other if other.is_floating() => (DataType::Float64, false),
        _ => (DataType::Utf8, false),
    };
    let wrong = |_| Error::Read {
        path: file.path.display().to_string(),
        reason: format!(
            "column `{}` ({}) has type {kind}, expected text, numbers or timestamps",
            column.name, column.key
        ),
    };
    let plain = cast(array, &target).map_err(wrong)?;
    let plain = if is_time { cast(&plain, &DataType::Int64).map_err(wrong)? } else { plain };
    Ok((plain, is_time))
}

fn parquet_cell(array: &ArrayRef, is_time: bool, row: usize) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Missing;
    }
    match array.data_type() {
        DataType::Int64 if is_time => Cell::Micros(array.as_primitive::<Int64Type>().value(row)),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        _ => match array.as_string::<i32>().value(row) {
            "" => Cell::Missing,
            text => Cell::Text(text),
        },
    }
}
