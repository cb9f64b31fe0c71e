//! Captions that a user brings along: a CSV or Parquet with `item_id` and `caption`.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use crate::dataset::Catalogue;
use crate::input::{InputFile, NamedColumn, Rejects, one_line, read_columns};
use crate::job::Limits;
use crate::tables::{CaptionRow, CaptionStatus, ItemRow, RejectedRow};
use crate::{Error, Result};

/// The captions of a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Captions {
    /// One row per item, in the order of the catalogue; items without a caption have an empty one.
    pub rows: Vec<CaptionRow>,
    /// Rows for items that the catalogue does not have, for example those that the k-core dropped.
    pub unknown: u64,
    /// Rows that could not be used.
    pub rejected: Vec<RejectedRow>,
}

/// Reads the captions of a catalogue from a file.
///
/// # Errors
/// [`Error::Read`] and [`Error::MissingColumn`] for a file that is not as it should be, [`Error::DuplicateCaption`] for an item
/// that occurs twice, [`Error::TooManyRejected`] past `limits.max_rejected`.
pub fn read_captions(path: &str, catalogue: &Catalogue, limits: &Limits) -> Result<Captions> {
    const COLUMNS: [NamedColumn<'_>; 2] = [
        NamedColumn { name: "item_id", key: "captions.table" },
        NamedColumn { name: "caption", key: "captions.table" },
    ];
    let file = InputFile::new(Path::new(path.strip_prefix("file://").unwrap_or(path)));
    let mut captions: Vec<Option<String>> = vec![None; catalogue.items().len()];
    let mut rejects = Rejects::new(limits.max_rejected);
    let mut unknown = 0;
    read_columns(&file, &COLUMNS, &mut |row, cells| {
        rejects.count_row();
        let cells = match cells {
            Ok(cells) => cells,
            Err(reason) => return rejects.reject(&file.name, Some(row), reason),
        };
        let Some(id) = cells[0].text() else { return rejects.reject(&file.name, Some(row), "empty item id") };
        let Some(index) = catalogue.index(&id) else {
            unknown += 1;
            return Ok(());
        };
        let slot = &mut captions[index as usize - 1];
        if slot.is_some() {
            return Err(Error::DuplicateCaption { file: file.path.display().to_string(), item: id.into_owned(), row });
        }
        *slot = Some(one_line(&cells[1].text().unwrap_or_default()).into_owned());
        Ok(())
    })?;
    rejects.check()?;
    let rows = captions.into_iter().zip(catalogue.items()).map(|(caption, item)| row(&item.item_id, caption)).collect();
    Ok(Captions { rows, unknown, rejected: rejects.into_rows() })
}

/// The captions of a job without any: every item's is missing.
#[must_use]
pub fn no_captions(catalogue: &Catalogue) -> Vec<CaptionRow> {
    catalogue.items().iter().map(|item| row(&item.item_id, None)).collect()
}

/// The captions that an earlier job has for a catalogue; `unknown` are its rows for other items.
#[must_use]
pub fn carry_over(earlier: Vec<CaptionRow>, catalogue: &Catalogue) -> Captions {
    let mut by_id: HashMap<String, CaptionRow> = earlier.into_iter().map(|row| (row.item_id.clone(), row)).collect();
    let row = |item: &ItemRow| {
        by_id.remove(&item.item_id).unwrap_or_else(|| CaptionRow {
            reason: Some("new_item: the earlier job did not have this item".to_owned()),
            ..row(&item.item_id, None)
        })
    };
    let rows: Vec<CaptionRow> = catalogue.items().iter().map(row).collect();
    Captions { rows, unknown: by_id.len() as u64, rejected: Vec::new() }
}

fn row(item_id: &str, caption: Option<String>) -> CaptionRow {
    let caption = caption.unwrap_or_default();
    let status = if caption.is_empty() { CaptionStatus::Missing } else { CaptionStatus::Ok };
    CaptionRow { item_id: item_id.to_owned(), caption, status, reason: None, image_sha256: None, model: None }
}
