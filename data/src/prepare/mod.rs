//! From the files of a user to histories and items: reads, filters, orders, groups.
//!
//! Readers stream the files line by line and put rows that make no sense aside; the good ones are spooled to a local folder.
//! Titles, the k-core and the order are plans over the spool, within `limits.memory`. The result depends on the rows only, not
//! on their order, the number of threads or the memory.

mod counts;
mod engine;
mod filter;
mod formats;
mod gauge;
mod histories;
mod inputs;
mod intake;
mod spool;

#[cfg(test)]
mod tests;

pub use counts::{Counts, Population};
pub use gauge::Gauge;
pub use histories::Histories;
pub use inputs::input_files;

pub use crate::input::InputFile;

use std::path::Path;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use tempfile::TempDir;

use crate::job::{Dataset, Limits};
use crate::tables::{ItemRow, RejectedRow};
use crate::{Error, Result};
use engine::Engine;
use filter::KCore;
use inputs::Inputs;
use intake::{Intake, Interest, Taken};
use spool::Unit;

/// A prepared dataset.
#[derive(Debug)]
pub struct Prepared {
    /// The items that stay, in byte order of their ids.
    pub items: Vec<ItemRow>,
    /// What was kept and what was dropped.
    pub counts: Counts,
    /// Rows of the input that could not be used.
    pub rejected: Vec<RejectedRow>,
    /// The users that stay, in byte order of their ids, shard by shard.
    pub histories: Histories,
    /// How many shards there are.
    pub shards: u32,
}

/// Prepares a dataset; `spool` is a folder for what does not fit into memory, left as empty as it was found, also when the
/// future is dropped on the way. `gauge` shows how far it is.
///
/// In this order: rows that cannot be parsed are rejected; interactions below `min_rating` and those with items without a
/// title (where the dataset comes with a catalogue) are dropped; of several interactions of a user with one item the earliest
/// stays; then the k-core, to its fixed point; then users with fewer than three items. Within a user, interactions are ordered
/// by time and, at the same time, by item id in byte order.
///
/// # Errors
/// [`Error::MissingInput`], [`Error::MissingColumn`] and [`Error::Read`] for files that are not as they should be,
/// [`Error::TooManyRejected`] past `limits.max_rejected`, [`Error::NothingLeft`] if no user stays, [`Error::Memory`] if
/// `limits.memory` is too small even with spilling.
pub async fn prepare(dataset: &Dataset, limits: &Limits, spool: &Path, gauge: &Gauge) -> Result<Prepared> {
    let inputs = Inputs::find(dataset)?;
    let folder = spool_folder(spool)?;
    let mut taken = read(dataset, &inputs, limits, folder.path(), gauge).await?;
    gauge.end_of_reading();
    let engine = Engine::new(folder.path(), limits.memory_bytes)?;
    let mut counts = Counts { rows: taken.interactions, below_min_rating: taken.below_min_rating, ..Counts::default() };

    let metadata = Box::pin(metadata(&engine, dataset, &mut taken)).await?;
    taken.rejects.check()?;
    let rows = Box::pin(filter(&engine, dataset, metadata.as_ref(), &taken, &mut counts)).await?;
    if counts.users == 0 {
        return Err(nothing_left(dataset, counts));
    }
    let items = Box::pin(collect_items(&engine, &rows, metadata, &mut counts)).await?;
    let failure = engine.failure("ordering interactions");
    let ordered = filter::in_order(rows).map_err(&failure)?;
    let ordered = Box::pin(ordered.execute_stream()).await.map_err(&failure)?;
    tracing::info!(
        users = counts.users,
        items = counts.items,
        interactions = counts.interactions,
        rejected = taken.rejects.rejected(),
        "dataset prepared"
    );
    Ok(Prepared {
        items,
        counts,
        rejected: taken.rejects.into_rows(),
        histories: Histories::new(ordered, Box::new(failure), dataset.shard_users, folder),
        shards: u32::try_from(counts.users.div_ceil(u64::from(dataset.shard_users.max(1)))).unwrap_or(u32::MAX),
    })
}

fn spool_folder(spool: &Path) -> Result<TempDir> {
    std::fs::create_dir_all(spool).map_err(|e| Error::spool(spool, &e))?;
    let spool = spool.canonicalize().map_err(|e| Error::spool(spool, &e))?;
    tempfile::Builder::new().prefix("prepare-").tempdir_in(&spool).map_err(|e| Error::spool(&spool, &e))
}

/// Reads all files into the spool, on a thread that may block; it ends early when this future is dropped.
async fn read(dataset: &Dataset, inputs: &Inputs, limits: &Limits, folder: &Path, gauge: &Gauge) -> Result<Taken> {
    let interest = Interest::of(gauge);
    let mut intake = Intake::new(dataset, limits, folder, &interest)?;
    let (dataset, inputs) = (dataset.clone(), inputs.clone());
    let reading = tokio::task::spawn_blocking(move || {
        formats::read(&dataset, &inputs, &mut intake)?;
        let taken = intake.finish()?;
        taken.rejects.check()?;
        Ok(taken)
    });
    match reading.await {
        Ok(taken) => taken,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    }
}

/// The metadata with one row per item, if there is any; repeated items are rejected.
async fn metadata(engine: &Engine, dataset: &Dataset, taken: &mut Taken) -> Result<Option<DataFrame>> {
    let rule = formats::metadata_rule(dataset);
    if taken.items == 0 && !rule.title_required {
        return Ok(None);
    }
    let metadata = filter::one_row_per_item(engine, rule).await;
    let (items, duplicates) = metadata.map_err(engine.failure("reading titles"))?;
    for duplicate in duplicates {
        taken.rejects.reject(&duplicate.file, Some(duplicate.line), "duplicate item id")?;
    }
    Ok(Some(items))
}

async fn filter(
    engine: &Engine,
    dataset: &Dataset,
    metadata: Option<&DataFrame>,
    taken: &Taken,
    counts: &mut Counts,
) -> Result<DataFrame> {
    let required = metadata.filter(|_| formats::metadata_rule(dataset).title_required);
    let unit = Unit::of_largest(taken.largest_number);
    let rows = filter::distinct_interactions(engine, required, unit, counts).await;
    let rows = rows.map_err(engine.failure("joining interactions with titles"))?;
    let core = KCore { per_user: dataset.min_interactions_per_user, per_item: dataset.min_interactions_per_item };
    filter::k_core(engine, rows, core, counts).await.map_err(engine.failure("filtering to the k-core"))
}

fn nothing_left(dataset: &Dataset, counts: Counts) -> Error {
    Error::NothingLeft {
        path: dataset.path.clone(),
        counts: Box::new(counts),
        per_user: dataset.min_interactions_per_user,
        per_item: dataset.min_interactions_per_item,
        min_rating: dataset.min_rating,
    }
}

async fn collect_items(
    engine: &Engine,
    rows: &DataFrame,
    metadata: Option<DataFrame>,
    counts: &mut Counts,
) -> Result<Vec<ItemRow>> {
    let failure = engine.failure("collecting items");
    let plan = filter::items_of(rows, metadata).map_err(&failure)?;
    let batches: Result<Vec<RecordBatch>, DataFusionError> = plan.collect().await;
    let mut items = Vec::new();
    for batch in batches.map_err(&failure)? {
        let column = |index: usize| batch.column(index).as_string::<i32>().clone();
        let (ids, titles, images, attributes) = (column(0), column(1), column(2), column(3));
        for row in 0..batch.num_rows() {
            let id = ids.value(row).to_owned();
            let title = text(&titles, row);
            counts.untitled_items += u64::from(title.is_none());
            items.push(ItemRow {
                title: title.unwrap_or_else(|| id.clone()),
                item_id: id,
                image: text(&images, row),
                attributes: text(&attributes, row).unwrap_or_else(|| "{}".to_owned()),
            });
        }
    }
    Ok(items)
}

fn text(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}
