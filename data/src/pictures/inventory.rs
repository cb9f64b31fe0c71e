//! Which item has which picture.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

use super::source::is_url;
use crate::Result;
use crate::artifact::Digest;
use crate::job::Captions;
use crate::store::Store;
use crate::tables::{CaptionStatus, ItemRow, PictureRow};

/// Endings of `{item_id}.…`, in the order in which they are looked for.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "JPG", "PNG"];
/// Pictures that are hashed at a time.
const AT_ONCE: usize = 16;

/// Finds the picture of every item, hashes it, and tells those that stand for "no picture" from the others.
///
/// A picture is the path that the item names, else `{item_id}.jpg` (or another ending). `fetched` has the pictures that
/// were downloaded, by URL.
///
/// # Errors
/// The failures of the store that holds the pictures.
pub async fn take_inventory(
    items: &[ItemRow],
    folder: Option<&Store>,
    fetched: &HashMap<String, PictureRow>,
    settings: &Captions,
    told: impl Fn(u64),
) -> Result<Vec<PictureRow>> {
    let files = match folder {
        Some(folder) => folder.list("").await?.into_iter().map(|entry| (entry.path, entry.size)).collect(),
        None => BTreeMap::new(),
    };
    let mut rows: Vec<PictureRow> = items.iter().map(|item| locate(item, &files, fetched, settings)).collect();
    if let Some(folder) = folder {
        hash(&mut rows, folder, told).await?;
    }
    mark_placeholders(&mut rows, settings);
    Ok(rows)
}

/// Where an item's picture lies, before it is read.
fn locate(
    item: &ItemRow,
    files: &BTreeMap<String, u64>,
    fetched: &HashMap<String, PictureRow>,
    settings: &Captions,
) -> PictureRow {
    let named = item.image.as_deref().map(str::trim).filter(|image| !image.is_empty());
    let by_name = named.filter(|image| !is_url(image)).map(|path| path.trim_start_matches("./").to_owned());
    let by_id = ENDINGS.iter().map(|ending| format!("{}.{ending}", item.item_id));
    let row = |status, reason: Option<String>| PictureRow {
        item_id: item.item_id.clone(),
        location: None,
        image_sha256: None,
        bytes: None,
        status,
        reason,
    };
    if let Some(path) = by_name.into_iter().chain(by_id).find(|path| files.contains_key(path)) {
        let size = files[&path];
        let found =
            |status, reason| PictureRow { location: Some(path.clone()), bytes: Some(size), ..row(status, reason) };
        if size > settings.max_bytes {
            let limit = settings.max_bytes;
            let reason = format!("too_many_bytes: {size} bytes, captions.max_bytes is {limit}");
            return found(CaptionStatus::TooLarge, Some(reason));
        }
        return found(CaptionStatus::Ok, None);
    }
    match named {
        Some(url) if is_url(url) => match fetched.get(url) {
            Some(picture) => PictureRow { item_id: item.item_id.clone(), ..picture.clone() },
            None => row(CaptionStatus::Missing, Some(format!("not_fetched: {url}; captions.fetch is off"))),
        },
        Some(path) => row(CaptionStatus::Missing, Some(format!("no_file: {}", misnamed(path, settings)))),
        None if settings.images.is_empty() => {
            row(CaptionStatus::Missing, Some("no_url: the item names none".to_owned()))
        }
        None => {
            let endings = ENDINGS.join(", ");
            row(CaptionStatus::Missing, Some(format!("no_file: no {} with one of {endings}", item.item_id)))
        }
    }
}

/// Why a path of the item's own leads to no file.
fn misnamed(path: &str, settings: &Captions) -> String {
    if settings.images.is_empty() {
        format!("{path} is no URL, and captions.images names no folder")
    } else if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        format!("{path} must be relative to captions.images, without `..`")
    } else {
        format!("{path} is not there")
    }
}

/// Fills in the hashes of the files; one that several items name is read once.
async fn hash(rows: &mut [PictureRow], folder: &Store, told: impl Fn(u64)) -> Result<()> {
    let unread = |row: &&PictureRow| row.status == CaptionStatus::Ok && row.image_sha256.is_none();
    let mut paths: Vec<String> = rows.iter().filter(unread).filter_map(|row| row.location.clone()).collect();
    paths.sort_unstable();
    paths.dedup();
    let read = |path: String| async move {
        let content = match folder.try_get(&path).await {
            Ok(Some(bytes)) => Ok(Digest::of_bytes(&bytes).to_string()),
            Ok(None) => Err("no_file: it vanished while pictures were listed".to_owned()),
            Err(e) if e.may_pass() => return Err(e),
            Err(e) => Err(format!("unreadable: {e}")),
        };
        Ok((path, content))
    };
    let mut contents = HashMap::new();
    let mut found = stream::iter(paths.into_iter().map(read)).buffer_unordered(AT_ONCE);
    while let Some((path, content)) = found.try_next().await? {
        contents.insert(path, content);
        told(contents.len() as u64);
    }
    for row in rows.iter_mut().filter(|row| row.status == CaptionStatus::Ok && row.image_sha256.is_none()) {
        match row.location.as_ref().and_then(|path| contents.get(path)) {
            Some(Ok(sha256)) => row.image_sha256 = Some(sha256.clone()),
            Some(Err(reason)) => (row.status, row.reason) = (CaptionStatus::Missing, Some(reason.clone())),
            None => {}
        }
    }
    Ok(())
}

/// Pictures that the settings name, and those that too many items have, say nothing about an item.
fn mark_placeholders(rows: &mut [PictureRow], settings: &Captions) {
    let mut items: HashMap<String, usize> = HashMap::new();
    for sha256 in rows.iter().filter_map(|row| row.image_sha256.clone()) {
        *items.entry(sha256).or_default() += 1;
    }
    let most = (settings.placeholder_share * rows.len() as f64).max(1.0);
    for row in rows {
        let Some(sha256) = row.image_sha256.as_ref().filter(|_| row.status == CaptionStatus::Ok) else { continue };
        let count = items[sha256];
        let reason = if settings.placeholder_sha256.contains(sha256) {
            "listed: its hash is in captions.placeholder_sha256".to_owned()
        } else if count as f64 > most {
            format!("shared: {count} items have this picture, more than captions.placeholder_share allows")
        } else {
            continue;
        };
        (row.status, row.reason) = (CaptionStatus::Placeholder, Some(reason));
    }
}
