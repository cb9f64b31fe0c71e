//! One part: rows to the bytes of a Parquet file and back.

use std::sync::LazyLock;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::{Row, Table};
use crate::{Error, Result};

/// Stands in every part, in the form that readers know how to take apart. Independent of this program's version, so
/// that a release does not change the bytes of a table.
const CREATED_BY: &str = "mllm4rec version 1.0.0 (build tables-1)";

/// Rows that are turned into columns, or back, at a time.
const BATCH_ROWS: usize = 4096;

/// Stands for the file in messages about bytes whose file is not known here.
const UNNAMED: &str = "a part";

static ZSTD: LazyLock<Compression> = LazyLock::new(|| Compression::ZSTD(ZstdLevel::default()));

/// Where a part comes from, in the key-value metadata of its footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// Id of the job that wrote it.
    pub job: String,
    /// Digest of the artifact.
    pub spec_digest: String,
    /// Digest of the model whose output it is.
    pub model_digest: Option<String>,
    /// The attempt that wrote it.
    pub attempt: String,
}

impl Footer {
    fn to_metadata(&self) -> Vec<KeyValue> {
        let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        let mut pairs = vec![pair("mllm4rec.job", &self.job), pair("mllm4rec.spec", &self.spec_digest)];
        pairs.extend(self.model_digest.as_deref().map(|digest| pair("mllm4rec.model", digest)));
        pairs.push(pair("mllm4rec.attempt", &self.attempt));
        pairs
    }

    fn from_metadata(pairs: &[KeyValue]) -> Self {
        let value = |key: &str| pairs.iter().find(|p| p.key == key).and_then(|p| p.value.clone());
        Self {
            job: value("mllm4rec.job").unwrap_or_default(),
            spec_digest: value("mllm4rec.spec").unwrap_or_default(),
            model_digest: value("mllm4rec.model"),
            attempt: value("mllm4rec.attempt").unwrap_or_default(),
        }
    }
}

/// What a part says about itself without its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Where it comes from.
    pub footer: Footer,
    /// Rows in it.
    pub rows: u64,
}

/// Encodes rows as one part. The same rows and footer always give the same bytes.
///
/// # Errors
/// [`Error::Column`] if a number does not fit into its column.
pub fn encode_part<R: Row>(rows: &[R], footer: &Footer) -> Result<Bytes> {
    let fail = |e: ParquetError| unreadable::<R>(UNNAMED, &e.to_string());
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(*ZSTD)
        .set_key_value_metadata(Some(footer.to_metadata()))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), R::schema(), options).map_err(fail)?;
    for chunk in rows.chunks(BATCH_ROWS) {
        writer.write(&R::to_batch(chunk)?).map_err(fail)?;
    }
    Ok(writer.into_inner().map_err(fail)?.into())
}

/// Decodes the rows of a part whose file is not known; see [`decode_part_of`].
///
/// # Errors
/// Those of [`decode_part_of`].
pub fn decode_part<R: Row>(bytes: Bytes) -> Result<Vec<R>> {
    decode_part_of(UNNAMED, bytes)
}

/// Decodes the rows of the part that `file` names in messages.
///
/// # Errors
/// [`Error::Part`] if it is not a Parquet file or a broken one, [`Error::Column`] if it holds another table.
pub fn decode_part_of<R: Row>(file: &str, bytes: Bytes) -> Result<Vec<R>> {
    let fail = |reason: String| unreadable::<R>(file, &reason);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, plain_types());
    let builder = builder.map_err(|e| fail(e.to_string()))?;
    // A part without rows has no batch, and must have the right columns all the same.
    R::from_batch(&RecordBatch::new_empty(builder.schema().clone())).map_err(|e| e.in_file(file))?;
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| fail(e.to_string()))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| fail(e.to_string()))?;
        rows.extend(R::from_batch(&batch).map_err(|e| e.in_file(file))?);
    }
    Ok(rows)
}

/// Reads the footer and the number of rows of a part.
///
/// # Errors
/// [`Error::Part`] if it is not a Parquet file or a broken one.
pub fn read_summary(file: &str, table: Table, bytes: Bytes) -> Result<Summary> {
    let read = ArrowReaderMetadata::load(&bytes, plain_types());
    let read = read.map_err(|e| Error::Part { file: file.to_owned(), table: table.name(), reason: e.to_string() })?;
    let metadata = read.metadata().file_metadata();
    let pairs = metadata.key_value_metadata().map_or(&[][..], Vec::as_slice);
    Ok(Summary { footer: Footer::from_metadata(pairs), rows: metadata.num_rows().try_into().unwrap_or(0) })
}

/// Types follow from the Parquet schema alone: what other writers note about their own in-memory types is passed over.
fn plain_types() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

fn unreadable<R: Row>(file: &str, reason: &str) -> Error {
    Error::Part { file: file.to_owned(), table: R::TABLE.name(), reason: reason.to_owned() }
}
