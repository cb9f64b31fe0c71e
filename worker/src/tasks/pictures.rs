//! pictures: where every item's picture lies and what it holds; those named by URL are downloaded first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use data::artifact::table_prefix;
use data::job::{Captions, Stage};
use data::pictures::fetch::{FetchOptions, FetchOutcome, FetchProgress, FetchReason, FetchRecord, fetch_all};
use data::pictures::{PictureSource, is_url, take_inventory};
use data::tables::{CaptionStatus, ItemRow, PictureRow, Table, read_all};
use proto::Progress;
use serde_json::json;

use crate::context::{Context, Output};
use crate::{Error, Result};

/// Makes the pictures table.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let prepare = cx.input(Stage::Prepare, None)?;
    let items: Vec<ItemRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Items, &prepare)))?;
    let captions = cx.job.captions.clone();
    let fetched = if captions.fetch.on { fetch(cx, &items, &captions)? } else { HashMap::new() };
    let source = PictureSource::open(&captions.images, &cx.store)?;
    let (read, total) = (AtomicU64::new(0), items.len() as u64);
    let told = |n| read.store(n, Ordering::Relaxed);
    let show =
        || Progress { done: read.load(Ordering::Relaxed), total, unit: "pictures".to_owned(), note: String::new() };
    let rows = cx.wait_showing(take_inventory(&items, source.folder(), &fetched, &captions, told), show)??;

    let pictured = |row: &&PictureRow| matches!(row.status, CaptionStatus::Ok | CaptionStatus::Placeholder);
    if !rows.iter().any(|row| pictured(&row)) {
        return Err(nobody(&rows, &captions));
    }
    let mut output = Output::default();
    for status in CaptionStatus::ALL {
        let count = rows.iter().filter(|r| r.status == status).count();
        output.stats.notes.insert(status.as_str().to_owned(), json!(count));
    }
    output.stats.rows = rows.len() as u64;
    let found = rows.iter().filter(|r| r.status == CaptionStatus::Ok).count();
    cx.part(&mut output, &rows, 0, 1)?;
    cx.progress(total, total, "items", || format!("{found} with a picture"));
    cx.commit(0, output)
}

/// A whole catalogue without a picture is a mistake in the job, not in the pictures.
fn nobody(rows: &[PictureRow], captions: &Captions) -> Error {
    let example = rows.iter().find_map(|row| Some(format!(" ({}: {})", row.item_id, row.reason.as_ref()?)));
    let place = if captions.images.is_empty() { "by URL" } else { captions.images.as_str() };
    let what = format!(
        "none of the {} items has a picture, {place}{}: set captions.images to the folder that holds {{item_id}}.jpg, name the \
         column of paths or URLs in dataset.columns.image, or set captions.from = \"none\"",
        rows.len(),
        example.unwrap_or_default()
    );
    Error::Nothing { stage: Stage::Pictures, what }
}

/// Downloads what items name by URL.
fn fetch(cx: &mut Context, items: &[ItemRow], captions: &Captions) -> Result<HashMap<String, PictureRow>> {
    let named = items.iter().filter_map(|item| item.image.as_deref()).map(str::trim);
    let urls: Vec<String> = named.filter(|image| is_url(image)).map(str::to_owned).collect();
    let options = FetchOptions {
        concurrent: captions.fetch.concurrency as usize,
        per_host: captions.fetch.per_host as usize,
        picture_bytes: captions.max_bytes,
        budget_time: Duration::from_secs(60 * u64::from(captions.fetch.minutes)),
        allow_hosts: captions.fetch.allow_hosts.clone(),
        ..FetchOptions::default()
    };
    let progress = std::sync::Mutex::new(FetchProgress::default());
    let now = || *progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let told = |p| *progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = p;
    let show = || {
        let p = now();
        let note = format!("{} without a picture, {} MiB", p.failed, p.stored_bytes >> 20);
        Progress { done: p.stored + p.failed, total: p.urls, unit: "downloads".to_owned(), note }
    };
    let (store, stop) = (cx.store.clone(), cx.stop());
    let records = cx.wait_showing(fetch_all(&store, urls, &options, &stop, told), show)??;
    let left = records.iter().filter(|r| budget_ran_out(r)).count();
    if left > 0 {
        return Err(Error::FetchBudget { left, minutes: captions.fetch.minutes });
    }
    Ok(records.into_iter().map(|record| (record.url.clone(), row(record, captions.max_bytes))).collect())
}

fn budget_ran_out(record: &FetchRecord) -> bool {
    matches!(&record.outcome, FetchOutcome::Failed(failure) if failure.reason == FetchReason::Budget)
}

/// The row of a download, but for its item.
fn row(record: FetchRecord, max_bytes: u64) -> PictureRow {
    let (code, sentence) = (record.outcome.as_str().into_owned(), record.outcome.to_string());
    let (image_sha256, bytes, status, reason) = match record.outcome {
        // Downloaded under a larger limit.
        FetchOutcome::Ok { bytes, .. } if bytes > max_bytes => {
            let reason = format!("too_many_bytes: {bytes} bytes, captions.max_bytes is {max_bytes}");
            (None, Some(bytes), CaptionStatus::TooLarge, Some(reason))
        }
        FetchOutcome::Ok { sha256, bytes } => (Some(sha256.to_string()), Some(bytes), CaptionStatus::Ok, None),
        FetchOutcome::Failed(failure) => {
            let status = match failure.reason {
                FetchReason::TooLarge { .. } => CaptionStatus::TooLarge,
                FetchReason::NotAnImage => CaptionStatus::Undecodable,
                _ => CaptionStatus::Missing,
            };
            (None, None, status, Some(format!("{code}: {sentence}")))
        }
    };
    PictureRow { item_id: String::new(), location: Some(record.url), image_sha256, bytes, status, reason }
}
