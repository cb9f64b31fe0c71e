//! Rows on their way from the user's files to the filter: spooled to local Parquet, so that memory does not grow with them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::{Error, Result};

/// Rows that are collected before a batch is written.
const BATCH_ROWS: usize = 32_768;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Microseconds since 1970, UTC; or a position, where only the order is known.
    Micros(i64),
    /// A number whose unit is known only once the whole column was seen.
    Number(i64),
}

impl Time {
    /// A time given in units of `micros` microseconds, if it is one that can be written down.
    pub(crate) fn from_units(value: i64, micros: i64) -> Option<Self> {
        value.checked_mul(micros).map(Self::Micros)
    }
}

/// How a column of numbers becomes microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Times this.
    Multiply(i64),
    /// Divided by this.
    Divide(i64),
}

impl Unit {
    /// The unit of a column, told by its largest value: seconds, milliseconds, microseconds or nanoseconds.
    ///
    /// Today is about 1.8e9 seconds; 1e11 seconds are in the year 5138 and 1e11 milliseconds in 1973.
    pub(crate) fn of_largest(largest: u64) -> Self {
        match largest {
            0..100_000_000_000 => Self::Multiply(1_000_000),
            100_000_000_000..100_000_000_000_000 => Self::Multiply(1_000),
            100_000_000_000_000..100_000_000_000_000_000 => Self::Multiply(1),
            _ => Self::Divide(1_000),
        }
    }
}

/// What is known about an item, as it goes to the spool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ItemMeta<'a> {
    pub(crate) id: &'a str,
    pub(crate) title: Option<&'a str>,
    pub(crate) image: Option<&'a str>,
    pub(crate) attributes: Option<&'a str>,
}

/// A Parquet file that is written batch by batch.
pub(crate) struct SpoolFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
    rows: u64,
}

impl SpoolFile {
    pub(crate) fn create(path: PathBuf, schema: SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(262_144))
            .build();
        let file = File::create_new(&path).map_err(|e| Error::spool(&path, &e))?;
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|e| Error::spool(&path, &e))?;
        Ok(Self { path, writer, rows: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|e| Error::spool(&self.path, &e))
    }

    /// Closes the file and says how many rows it holds.
    pub(crate) fn finish(self) -> Result<u64> {
        let Self { path, writer, rows } = self;
        writer.close().map_err(|e| Error::spool(&path, &e))?;
        Ok(rows)
    }
}

/// Interactions on their way to the filter: user, item, time, and whether the unit of the time is still open.
pub(crate) struct InteractionSpool {
    file: SpoolFile,
    schema: SchemaRef,
    users: StringBuilder,
    items: StringBuilder,
    times: Int64Builder,
    open_unit: BooleanBuilder,
    waiting: usize,
    largest_number: u64,
}

impl InteractionSpool {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("user", DataType::Utf8, false),
            Field::new("item", DataType::Utf8, false),
            Field::new("time", DataType::Int64, false),
            Field::new("open_unit", DataType::Boolean, false),
        ]));
        Ok(Self {
            file: SpoolFile::create(folder.join("interactions.parquet"), Arc::clone(&schema))?,
            schema,
            users: StringBuilder::new(),
            items: StringBuilder::new(),
            times: Int64Builder::new(),
            open_unit: BooleanBuilder::new(),
            waiting: 0,
            largest_number: 0,
        })
    }

    pub(crate) fn push(&mut self, user: &str, item: &str, time: Time) -> Result<()> {
        self.users.append_value(user);
        self.items.append_value(item);
        let (value, open) = match time {
            Time::Micros(value) => (value, false),
            Time::Number(value) => (value, true),
        };
        if open {
            self.largest_number = self.largest_number.max(value.unsigned_abs());
        }
        self.times.append_value(value);
        self.open_unit.append_value(open);
        self.waiting += 1;
        if self.waiting == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    /// The number of interactions and the largest time of open unit.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        self.flush()?;
        Ok((self.file.finish()?, self.largest_number))
    }

    fn flush(&mut self) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.users.finish()),
            Arc::new(self.items.finish()),
            Arc::new(self.times.finish()),
            Arc::new(self.open_unit.finish()),
        ];
        self.waiting = 0;
        self.file.write(&batch(&self.schema, columns))
    }
}

/// Item metadata on its way to the filter, with where each row stood.
pub(crate) struct ItemSpool {
    file: SpoolFile,
    schema: SchemaRef,
    texts: [StringBuilder; 5],
    lines: Int64Builder,
    order: Int64Builder,
    seen: i64,
    waiting: usize,
}

impl ItemSpool {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("title", DataType::Utf8, true),
            Field::new("image", DataType::Utf8, true),
            Field::new("attributes", DataType::Utf8, true),
            Field::new("file", DataType::Utf8, false),
            Field::new("line", DataType::Int64, false),
            Field::new("position", DataType::Int64, false),
        ]));
        Ok(Self {
            file: SpoolFile::create(folder.join("metadata.parquet"), Arc::clone(&schema))?,
            schema,
            texts: std::array::from_fn(|_| StringBuilder::new()),
            lines: Int64Builder::new(),
            order: Int64Builder::new(),
            seen: 0,
            waiting: 0,
        })
    }

    pub(crate) fn push(&mut self, file: &str, line: u64, item: ItemMeta<'_>) -> Result<()> {
        let values = [Some(item.id), item.title, item.image, item.attributes, Some(file)];
        for (builder, value) in self.texts.iter_mut().zip(values) {
            builder.append_option(value);
        }
        self.lines.append_value(i64::try_from(line).unwrap_or(i64::MAX));
        self.order.append_value(self.seen);
        self.seen += 1;
        self.waiting += 1;
        if self.waiting == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    pub(crate) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.file.finish()
    }

    fn flush(&mut self) -> Result<()> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(7);
        for builder in &mut self.texts {
            columns.push(Arc::new(builder.finish()));
        }
        columns.push(Arc::new(self.lines.finish()));
        columns.push(Arc::new(self.order.finish()));
        self.waiting = 0;
        self.file.write(&batch(&self.schema, columns))
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::clone(schema), columns).expect("the builders match the schema and have one length")
}
