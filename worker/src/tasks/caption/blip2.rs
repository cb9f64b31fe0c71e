//! Captions that a model writes: shards of items, each picture described once.

use std::collections::{BTreeMap, HashMap};

use data::artifact::table_prefix;
use data::job::Stage;
use data::pictures::{Described, share_out};
use data::tables::{CaptionRow, CaptionStatus, PictureRow, Table, read_all};
use kernels::Device;
use serde_json::json;

use super::describer::Describer;
use crate::Result;
use crate::context::{Context, Output};

/// Makes some shards.
pub(super) fn run(cx: &mut Context, shards: &[u32], device: &Device) -> Result<()> {
    let digest = cx.input(Stage::Pictures, None)?;
    let pictures: Vec<PictureRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Pictures, &digest)))?;
    let shares = share_out(&pictures, cx.plan.shards as usize);
    let mut describer = Describer::new(cx, device)?;
    for &shard in shards {
        if cx.is_done(shard)? {
            continue;
        }
        let mut rows: Vec<&PictureRow> = shares[shard as usize].iter().map(|&i| &pictures[i]).collect();
        rows.sort_by(|a, b| a.item_id.cmp(&b.item_id));
        let mut output = Output::default();
        let described = describe(cx, &mut describer, &rows, &mut output)?;
        let captions: Vec<CaptionRow> = rows.iter().map(|row| caption(row, &described, describer.name())).collect();
        for status in CaptionStatus::ALL {
            let count = captions.iter().filter(|r| r.status == status).count();
            output.stats.notes.insert(status.as_str().to_owned(), json!(count));
        }
        output.stats.rows = captions.len() as u64;
        cx.part(&mut output, &captions, shard, cx.plan.shards)?;
        cx.commit(shard, output)?;
    }
    Ok(())
}

/// What is to be said of the pictures of some items: from memory, or by looking at them.
fn describe(
    cx: &mut Context,
    describer: &mut Describer,
    rows: &[&PictureRow],
    output: &mut Output,
) -> Result<HashMap<String, Described>> {
    let mut pictures: BTreeMap<&str, &PictureRow> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status == CaptionStatus::Ok) {
        pictures.extend(row.image_sha256.as_deref().map(|sha256| (sha256, *row)));
    }
    let all: Vec<String> = pictures.keys().map(|&sha256| sha256.to_owned()).collect();
    let mut described = cx.wait(describer.known().find(&all))?;
    let new: Vec<&PictureRow> =
        pictures.iter().filter(|(sha256, _)| !described.contains_key(**sha256)).map(|(_, row)| *row).collect();
    output.stats.notes.insert("known_pictures".to_owned(), json!(described.len()));
    output.stats.notes.insert("described_pictures".to_owned(), json!(new.len()));
    if new.is_empty() {
        cx.progress(rows.len() as u64, rows.len() as u64, "items", String::new);
    } else {
        described.extend(describer.describe(cx, &new)?);
    }
    Ok(described)
}

/// An item's row.
fn caption(picture: &PictureRow, described: &HashMap<String, Described>, model: &str) -> CaptionRow {
    let known = picture.image_sha256.as_ref().filter(|_| picture.status == CaptionStatus::Ok);
    let (caption, status, reason) = match known.and_then(|sha256| described.get(sha256)) {
        Some(Described::Caption(text)) => (text.clone(), CaptionStatus::Ok, None),
        Some(Described::Undecodable(reason)) => (String::new(), CaptionStatus::Undecodable, Some(reason.clone())),
        Some(Described::TooLarge(reason)) => (String::new(), CaptionStatus::TooLarge, Some(reason.clone())),
        None if picture.status == CaptionStatus::Ok => {
            let gone = "gone: the picture is not there any more".to_owned();
            (String::new(), CaptionStatus::Missing, Some(gone))
        }
        None => (String::new(), picture.status, picture.reason.clone()),
    };
    let model = (status == CaptionStatus::Ok).then(|| model.to_owned());
    let (item_id, image_sha256) = (picture.item_id.clone(), picture.image_sha256.clone());
    CaptionRow { item_id, caption, status, reason, image_sha256, model }
}
