//! `mllm4rec captions`: what was said of the pictures of a job.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use comfy_table::Table as Grid;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use coordinator::records::{self, StageRecord};
use data::job::{CaptionsFrom, Job, Stage};
use data::pictures::PictureSource;
use data::store::Store;
use data::tables::{CaptionRow, CaptionStatus, ItemRow, PictureRow, Table, read_all};
use serde_json::json;

use crate::args::Captions;
use crate::contact_sheet::{Entry, Sheet};
use crate::terminal::print;
use crate::{exit, target};

/// Prints captions, or writes a contact sheet of pictures and captions.
pub(crate) async fn run(args: Captions) -> Result<u8> {
    let store = Store::open_existing(&args.root)?;
    let job_id = target::job_in(&store, &args.job).await?;
    let stages = records::stages(&store, &job_id).await?;
    let captions: Vec<CaptionRow> = read(&store, &stages, Stage::Caption, Table::Captions).await?;
    let items: Vec<ItemRow> = read(&store, &stages, Stage::Prepare, Table::Items).await?;
    let titles: BTreeMap<String, String> = items.into_iter().map(|i| (i.item_id, i.title)).collect();
    let counts = counts(&captions);
    let Some(file) = &args.html else {
        show(&args, &job_id, &captions, &titles, &counts);
        return Ok(exit::DONE);
    };
    let job = Job::parse("the job's file", &records::job_toml(&store, &job_id).await?, &[])?;
    let pictures: Vec<PictureRow> = if job.captions.from == CaptionsFrom::Blip2 {
        read(&store, &stages, Stage::Pictures, Table::Pictures).await?
    } else {
        Vec::new()
    };
    let images = args.images.as_deref().unwrap_or(if pictures.is_empty() { "" } else { &job.captions.images });
    let source = PictureSource::open(images, &store).with_context(|| {
        format!("cannot open the pictures in {images}: if they have moved, say where with --images")
    })?;
    let chosen = choose(captions, args.status, args.limit.unwrap_or(5000));
    let entries: Vec<Entry> = chosen.into_iter().map(|row| entry(row, &titles)).collect();
    let sheet = Sheet { job: &job_id, counts, entries };
    let written = sheet.write(file, &pictures, &source, &job.captions).await?;
    print(format_args!("{}: {written} pictures and captions", file.display()));
    Ok(exit::DONE)
}

async fn read<R: data::tables::Row>(
    store: &Store,
    stages: &[StageRecord],
    stage: Stage,
    table: Table,
) -> Result<Vec<R>> {
    let found = stages
        .iter()
        .find(|s| s.stage == stage)
        .ok_or_else(|| exit::BadRequest(format!("the job has no stage `{stage}`, so there are no captions to show")))?;
    let rows = read_all(store, &found.artifact().table_prefix(table)).await;
    rows.with_context(|| format!("the stage `{stage}` of the job is not finished"))
}

/// How many captions there are of every status, those without any left out.
fn counts(captions: &[CaptionRow]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    captions.iter().for_each(|row| *counts.entry(row.status.as_str()).or_default() += 1);
    counts
}

/// Rows of one status, or of all; of too many those that went wrong first, then others from everywhere, all by item.
fn choose(mut rows: Vec<CaptionRow>, status: Option<CaptionStatus>, limit: usize) -> Vec<CaptionRow> {
    rows.retain(|row| status.is_none_or(|status| row.status == status));
    rows.sort_by(|a, b| a.item_id.cmp(&b.item_id));
    if rows.len() <= limit {
        return rows;
    }
    let (mut good, mut bad): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.status == CaptionStatus::Ok);
    bad.truncate(limit.saturating_sub(good.len()).max(limit / 2));
    let (all, wanted) = (good.len(), (limit - bad.len()).min(good.len()));
    let mut place = 0;
    good.retain(|_| {
        place += 1;
        place * wanted / all != (place - 1) * wanted / all
    });
    bad.extend(good);
    bad.sort_by(|a, b| a.item_id.cmp(&b.item_id));
    bad
}

fn entry(row: CaptionRow, titles: &BTreeMap<String, String>) -> Entry {
    Entry { title: titles.get(&row.item_id).cloned().unwrap_or_default(), row, picture: None }
}

/// The table on the terminal.
fn show(
    args: &Captions,
    job: &str,
    captions: &[CaptionRow],
    titles: &BTreeMap<String, String>,
    counts: &BTreeMap<&str, usize>,
) {
    let chosen = choose(captions.to_vec(), args.status, args.limit.unwrap_or(if args.json { usize::MAX } else { 20 }));
    if args.json {
        let row = |r: &CaptionRow| {
            let title = titles.get(&r.item_id);
            json!({"item_id": r.item_id, "title": title, "caption": r.caption, "status": r.status, "reason": r.reason,
                "image_sha256": r.image_sha256})
        };
        let rows: Vec<_> = chosen.iter().map(row).collect();
        print(format_args!("{:#}", json!({"job": job, "counts": counts, "captions": rows})));
        return;
    }
    let mut grid = Grid::new();
    grid.load_style(UTF8_BORDERS_ONLY).set_header(["item", "title", "status", "caption, or why there is none"]);
    for row in &chosen {
        let text = if row.caption.is_empty() { row.reason.as_deref().unwrap_or_default() } else { &row.caption };
        let title = titles.get(&row.item_id).map(String::as_str).unwrap_or_default();
        grid.add_row([&row.item_id, title, row.status.as_str(), text]);
    }
    let counts: Vec<String> = counts.iter().map(|(status, n)| format!("{n} {status}")).collect();
    print(format_args!("{} captions: {}", captions.len(), counts.join(", ")));
    print(grid);
    if chosen.len() < captions.len() {
        print(format_args!(
            "a sample of {}; --limit shows more, --html FILE writes a sheet with the pictures",
            chosen.len()
        ));
    }
}
