//! Reading a finished table folder part by part.

use std::marker::PhantomData;

use super::{Row, Table, decode_part_of, part_name, part_name_index};
use crate::artifact::SUCCESS;
use crate::store::Store;
use crate::{Error, Result};

/// The parts of one finished table, in order.
#[derive(Clone, Debug)]
pub struct Reader<R> {
    store: Store,
    paths: Vec<String>,
    row: PhantomData<fn() -> R>,
}

impl<R: Row> Reader<R> {
    /// Lists the parts of a folder.
    ///
    /// # Errors
    /// [`Error::Unfinished`] without a `_SUCCESS`, [`Error::PartMissing`] if a part's number is not there, and the
    /// store's own failures.
    pub async fn open(store: &Store, folder: &str) -> Result<Self> {
        let entries = store.list(folder).await?;
        let names: Vec<&str> = entries.iter().map(|e| e.path[folder.len()..].trim_start_matches('/')).collect();
        if !names.contains(&SUCCESS) {
            return Err(Error::Unfinished { folder: store.name(folder) });
        }
        let mut parts: Vec<(u32, u32)> = names.iter().filter_map(|name| part_name_index(name)).collect();
        parts.sort_unstable();
        // Of rejected rows only those shards have a part that have something to say.
        if let Some(part) = gap(&parts).filter(|_| R::TABLE != Table::Rejected) {
            return Err(Error::PartMissing { folder: store.name(folder), part });
        }
        let paths = parts.into_iter().map(|(index, of)| format!("{folder}/{}", part_name(index, of))).collect();
        Ok(Self { store: store.clone(), paths, row: PhantomData })
    }

    /// How many parts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there is no part at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Path of a part below the root of the store.
    #[must_use]
    pub fn path(&self, part: usize) -> &str {
        &self.paths[part]
    }

    /// The rows of a part.
    ///
    /// # Errors
    /// Those of [`super::decode_part_of`], and the store's own failures.
    pub async fn part(&self, part: usize) -> Result<Vec<R>> {
        self.part_through(&self.store, part).await
    }

    /// The rows of a part, by another handle of the same store: of somebody who waits no longer than until a stop of their own.
    ///
    /// # Errors
    /// Those of [`Reader::part`].
    pub async fn part_through(&self, store: &Store, part: usize) -> Result<Vec<R>> {
        let path = self.path(part);
        decode_part_of(&store.name(path), store.get(path).await?)
    }
}

/// The rows of a whole table, for tables that fit into memory.
///
/// # Errors
/// Those of [`Reader::open`] and [`Reader::part`].
pub async fn read_all<R: Row>(store: &Store, folder: &str) -> Result<Vec<R>> {
    let reader = Reader::open(store, folder).await?;
    let mut rows = Vec::new();
    for part in 0..reader.len() {
        rows.extend(reader.part(part).await?);
    }
    Ok(rows)
}

/// The first name that a complete folder would have and this one has not.
fn gap(parts: &[(u32, u32)]) -> Option<String> {
    let &(_, of) = parts.first()?;
    (0..of).find(|&i| parts.get(i as usize) != Some(&(i, of))).map(|i| part_name(i, of))
}
