//! Users and items as the models see them: numbers.

use data::artifact::{ArtifactId, Digest, table_prefix};
use data::dataset::Catalogue;
use data::job::Stage;
use data::tables::{HistoryRow, ItemRow, Reader, Table, read_all};

use crate::context::Context;
use crate::{Error, Result};

/// A user with the numbers of all of their items, in time order.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// The id as the user of the project gave it.
    pub(crate) id: String,
    /// Item numbers from 1.
    pub(crate) items: Vec<u32>,
}

/// The output of the prepare stage, numbered.
pub(crate) struct Population {
    /// The items.
    pub(crate) catalogue: Catalogue,
    histories: Reader<HistoryRow>,
}

impl Population {
    /// Opens the population that a task's artifact was planned over.
    pub(crate) fn open(cx: &Context) -> Result<Self> {
        let digest = cx.input(Stage::Prepare, None)?;
        let items: Vec<ItemRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Items, &digest)))?;
        let histories = cx.wait(Reader::open(&cx.store, &table_prefix(Table::Histories, &digest)))?;
        Ok(Self { catalogue: Catalogue::new(items)?, histories })
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.histories.len()
    }

    /// The users of one shard.
    pub(crate) fn shard(&self, cx: &Context, shard: usize) -> Result<Vec<User>> {
        let rows = cx.wait(self.histories.part_through(&cx.store, shard))?;
        rows.iter().map(|row| Ok(User { items: self.catalogue.encode(row)?, id: row.user_id.clone() })).collect()
    }

    /// All users, for training: numbers only, four bytes for an interaction.
    pub(crate) fn users(&self, cx: &Context) -> Result<Vec<User>> {
        let mut users = Vec::new();
        for shard in 0..self.shards() {
            users.extend(self.shard(cx, shard)?);
        }
        Ok(users)
    }
}

/// Opens a table of another artifact: once for all shards, since its parts are listed.
pub(crate) fn open_table<R: data::tables::Row>(cx: &Context, stage: Stage, digest: &Digest) -> Result<Reader<R>> {
    let artifact = ArtifactId { stage, digest: digest.clone() };
    Ok(cx.wait(Reader::open(&cx.store, &artifact.table_prefix(R::TABLE)))?)
}

/// Reads the part of another table that holds the users of a shard: a row for every user, in the same order; no row at
/// all if the shard was put aside there.
pub(crate) fn read_shard<R: data::tables::Row>(
    cx: &Context,
    reader: &Reader<R>,
    shard: usize,
    users: &[User],
    id_of: impl Fn(&R) -> &String,
) -> Result<Vec<R>> {
    let part = if shard < reader.len() { cx.wait(reader.part_through(&cx.store, shard))? } else { Vec::new() };
    if part.is_empty() {
        return Ok(part);
    }
    if part.len() != users.len() || part.iter().zip(users).any(|(row, user)| *id_of(row) != user.id) {
        let what = format!("{} has other users than the histories", reader.path(shard));
        return Err(Error::Misfit { what });
    }
    Ok(part)
}
