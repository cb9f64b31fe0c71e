//! From columns back to the fields of rows, with every surprise named.

use arrow::array::{
    Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::record_batch::RecordBatch;

use super::{Row, Table};
use crate::{Error, Result};

/// The columns of a batch by name.
pub(super) struct Columns<'a> {
    table: Table,
    batch: &'a RecordBatch,
}

/// The lists of a column: one per row, all elements in one array.
pub(super) struct Lists<'a, A> {
    lists: &'a ListArray,
    elements: &'a A,
}

impl<'a> Columns<'a> {
    pub(super) fn of<R: Row>(batch: &'a RecordBatch) -> Self {
        Self { table: R::TABLE, batch }
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    pub(super) fn strings(&self, name: &str) -> Result<&'a StringArray> {
        self.required(name, "a string")
    }

    pub(super) fn optional_strings(&self, name: &str) -> Result<&'a StringArray> {
        self.column(name, "a string")
    }

    pub(super) fn float64s(&self, name: &str) -> Result<&'a Float64Array> {
        self.required(name, "a 64-bit float")
    }

    /// A count or rank of a row.
    pub(super) fn u32s(&self, name: &str) -> Result<Vec<u32>> {
        let values: &Int32Array = self.required(name, "a 32-bit integer")?;
        values.values().iter().map(|&v| self.unsigned(name, v)).collect()
    }

    pub(super) fn optional_u32s(&self, name: &str) -> Result<Vec<Option<u32>>> {
        let values: &Int32Array = self.column(name, "a 32-bit integer")?;
        values.iter().map(|v| v.map(|v| self.unsigned(name, v)).transpose()).collect()
    }

    pub(super) fn u64s(&self, name: &str) -> Result<Vec<u64>> {
        let values: &Int64Array = self.required(name, "a 64-bit integer")?;
        values.values().iter().map(|&v| self.unsigned(name, v)).collect()
    }

    pub(super) fn optional_u64s(&self, name: &str) -> Result<Vec<Option<u64>>> {
        let values: &Int64Array = self.column(name, "a 64-bit integer")?;
        values.iter().map(|v| v.map(|v| self.unsigned(name, v)).transpose()).collect()
    }

    /// A string of a fixed set.
    pub(super) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Vec<T>> {
        let parse = |(row, text): (usize, Option<&str>)| {
            let text = text.unwrap_or_default();
            text.parse().map_err(|_| self.wrong(name, format!("holds the unknown value `{text}` in row {row}")))
        };
        self.strings(name)?.iter().enumerate().map(parse).collect()
    }

    pub(super) fn string_lists(&self, name: &str) -> Result<Lists<'a, StringArray>> {
        self.lists(name, "a list of strings")
    }

    pub(super) fn float32_lists(&self, name: &str) -> Result<Lists<'a, Float32Array>> {
        self.lists(name, "a list of 32-bit floats")
    }

    pub(super) fn instant_lists(&self, name: &str) -> Result<Lists<'a, TimestampMicrosecondArray>> {
        self.lists(name, "a list of timestamps in microseconds")
    }

    pub(super) fn u32_lists(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let lists: Lists<'_, Int32Array> = self.lists(name, "a list of 32-bit integers")?;
        let unsigned = |row| lists.values(row).values().iter().map(|&v| self.unsigned(name, v)).collect();
        (0..self.rows()).map(unsigned).collect()
    }

    /// The error for a column.
    pub(super) fn wrong(&self, column: &str, problem: String) -> Error {
        Error::Column { file: "a part".into(), table: self.table.name(), column: column.to_owned(), problem }
    }

    fn column<A: Array + 'static>(&self, name: &str, wanted: &str) -> Result<&'a A> {
        let column = self.batch.column_by_name(name).ok_or_else(|| {
            let there: Vec<_> = self.batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
            self.wrong(name, format!("is missing (there are {})", there.join(", ")))
        })?;
        let kind = column.data_type();
        column.as_any().downcast_ref().ok_or_else(|| self.wrong(name, format!("is {kind} instead of {wanted}")))
    }

    fn required<A: Array + 'static>(&self, name: &str, wanted: &str) -> Result<&'a A> {
        let column: &A = self.column(name, wanted)?;
        self.without_nulls(name, column)?;
        Ok(column)
    }

    fn lists<A: Array + 'static>(&self, name: &str, wanted: &str) -> Result<Lists<'a, A>> {
        let lists: &ListArray = self.required(name, wanted)?;
        let kind = lists.data_type();
        let elements = lists.values().as_any().downcast_ref();
        let elements: &A = elements.ok_or_else(|| self.wrong(name, format!("is {kind} instead of {wanted}")))?;
        self.without_nulls(name, elements)?;
        Ok(Lists { lists, elements })
    }

    fn without_nulls(&self, name: &str, array: &dyn Array) -> Result<()> {
        if array.null_count() == 0 {
            Ok(())
        } else {
            Err(self.wrong(name, "holds a null where a value must be".into()))
        }
    }

    fn unsigned<S: Copy + std::fmt::Display, U: TryFrom<S>>(&self, name: &str, value: S) -> Result<U> {
        U::try_from(value).map_err(|_| self.wrong(name, format!("holds {value}, which must not be negative")))
    }
}

/// The string of a row, or none where it is null.
pub(super) fn text(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}

impl<A> Lists<'_, A> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        // Offsets of an array are non-negative and ascending; Arrow checks that when it builds one.
        let offset = |i: usize| usize::try_from(self.lists.value_offsets()[i]).unwrap_or(0);
        offset(row)..offset(row + 1)
    }
}

impl Lists<'_, StringArray> {
    pub(super) fn row(&self, row: usize) -> Vec<String> {
        self.range(row).map(|i| self.elements.value(i).to_owned()).collect()
    }
}

impl Lists<'_, Float32Array> {
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        self.elements.values()[self.range(row)].to_vec()
    }
}

impl Lists<'_, TimestampMicrosecondArray> {
    pub(super) fn row(&self, row: usize) -> Vec<i64> {
        self.elements.values()[self.range(row)].to_vec()
    }
}

impl Lists<'_, Int32Array> {
    fn values(&self, row: usize) -> Int32Array {
        let range = self.range(row);
        self.elements.slice(range.start, range.len())
    }
}
