//! `output.publish`: finished tables at a place of the user's, under the rules of our own folders.
//!
//! Rankings are copied, or candidates where nothing is ranked: the parts by *create unless it exists*, then `_SUCCESS`
//! when all of them are there. The place is the user's: nothing in it is overwritten or removed, and an object that does
//! not belong to the table is an error. So a copy may be cut off anywhere and taken up again, by anybody.
//!
//! A part is read, compared with its record and written, whatever the two stores are; some parts are in memory at a
//! time, never a table. A copy inside the store would be faster, but no condition can be had on it: S3 copies over what
//! is there.
//!
//! ```text
//! _control/v1/jobs/<id>/publish/00001.begun.json    the day of the submission
//! _control/v1/jobs/<id>/publish/00001.done.json     the folders, when all of them are complete
//! ```
//!
//! The day is fixed when the job is submitted and holds until the publication is done: a job that is taken up after
//! midnight goes on in the same folder. A job that is submitted again on a later day is published again for that day.

mod copy;
mod day;
#[cfg(test)]
mod tests;

use data::artifact::{ArtifactId, Digest};
use data::job::{Fill, Job, Place, Split, Stage};
use data::store::Store;
use data::tables::Table;
use serde::{Deserialize, Serialize};

use crate::records::{self, StageRecord};
use crate::{Error, Result};
use copy::Copy;

/// A table at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFolder {
    /// URL of the folder.
    pub folder: String,
    /// The table.
    pub table: Table,
    /// The split.
    pub split: Split,
    /// Digest of the artifact whose table it is.
    pub digest: Digest,
    /// Its parts.
    pub parts: u64,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its parts.
    pub bytes: u64,
}

/// One time that a job is published.
#[derive(Serialize, Deserialize)]
struct Begun {
    date: String,
}

/// Fixes the day and looks whether the places are free, so that a job does not run for hours to find them taken.
///
/// # Errors
/// [`Error::PublishIntoRoot`] if a place is the coordinator's own, [`Error::Publish`] if another table lies there; the store's
/// own failures.
pub async fn begin(store: &Store, job_id: &str, job: &Job, stages: &[StageRecord]) -> Result<()> {
    let Some(place) = &job.output.publish else { return Ok(()) };
    let today = day::today();
    // Also the folder in which those of several splits would be.
    let whole = place.folder(Fill { job: job_id, name: &job.name, date: &today }, Split::Test, false);
    let folders = targets(job_id, &today, place, job, stages).into_iter().map(|target| target.folder);
    if let Some(folder) = folders.chain([whole]).find(|folder| Place::is_in(folder, store)) {
        return Err(Error::PublishIntoRoot { folder, root: store.url().to_owned() });
    }
    let publication = Publication::open(store, job_id, place, &today).await?;
    for target in publication.targets(job, stages) {
        copy::refuse_other_table(&open(&target.folder)?, &target).await.map_err(at(&target.folder))?;
    }
    Ok(())
}

/// Copies the tables of a job whose stages are all done. Whole again or not at all for readers; may be repeated.
///
/// # Errors
/// [`Error::Publish`] naming the place and what is wrong there; the store's own failures.
pub async fn publish(store: &Store, job_id: &str, job: &Job, stages: &[StageRecord]) -> Result<Vec<PublishedFolder>> {
    publish_to(store, job_id, job, stages, &day::today(), open).await
}

/// [`publish`] on a day, with any way to open the places.
async fn publish_to(
    store: &Store,
    job_id: &str,
    job: &Job,
    stages: &[StageRecord],
    today: &str,
    open: impl Fn(&str) -> Result<Store>,
) -> Result<Vec<PublishedFolder>> {
    let Some(place) = &job.output.publish else { return Ok(Vec::new()) };
    let publication = Publication::open(store, job_id, place, today).await?;
    // Every place is looked at before anything is written to one.
    let mut copies = Vec::new();
    for target in publication.targets(job, stages) {
        let folder = target.folder.clone();
        let trusted = publication.earlier.iter().any(|done| target.is(done));
        copies.push(Copy::begin(store, open(&folder)?, target, trusted).await.map_err(at(&folder))?);
    }
    let mut folders = Vec::new();
    for copy in copies {
        let folder = copy.folder().to_owned();
        folders.push(copy.finish().await.map_err(at(&folder))?);
    }
    publication.done(&folders).await?;
    Ok(folders)
}

fn open(folder: &str) -> Result<Store> {
    Store::open_place(folder).map_err(at(folder))
}

fn at(folder: &str) -> impl Fn(data::Error) -> Error {
    let folder = folder.to_owned();
    move |source| Error::Publish { folder: folder.clone(), source }
}

/// A table and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    folder: String,
    table: Table,
    split: Split,
    artifact: ArtifactId,
}

impl Target {
    fn is(&self, done: &PublishedFolder) -> bool {
        self.folder == done.folder && self.table == done.table && self.artifact.digest == done.digest
    }
}

/// The tables that a job publishes.
fn tables(job: &Job, stages: &[StageRecord]) -> Vec<(Table, Split, ArtifactId)> {
    let of = |stage, table| -> Vec<(Table, Split, ArtifactId)> {
        let made = stages.iter().filter(|record| record.stage == stage);
        let made = made.filter_map(|record| Some((table, record.split?, record.artifact())));
        made.filter(|(_, split, _)| job.splits.contains(split)).collect()
    };
    let rankings = of(Stage::Rank, Table::Rankings);
    if rankings.is_empty() { of(Stage::Retrieve, Table::Candidates) } else { rankings }
}

/// Where the tables of a job go on a day.
fn targets(job_id: &str, date: &str, place: &Place, job: &Job, stages: &[StageRecord]) -> Vec<Target> {
    let tables = tables(job, stages);
    let several = tables.len() > 1;
    let fill = Fill { job: job_id, name: &job.name, date };
    let target = |(table, split, artifact)| {
        let folder = place.folder(fill, split, several);
        Target { folder, table, split, artifact }
    };
    tables.into_iter().map(target).collect()
}

/// A publication that is open, or done and may be looked over again.
struct Publication<'a> {
    store: &'a Store,
    job: &'a str,
    place: &'a Place,
    number: u32,
    date: String,
    /// Folders that were complete before.
    earlier: Vec<PublishedFolder>,
}

impl<'a> Publication<'a> {
    /// Takes up the last publication, or begins another one if that is done and of an earlier day.
    async fn open(store: &'a Store, job: &'a str, place: &'a Place, today: &str) -> Result<Self> {
        let prefix = format!("{}/publish", records::folder(job));
        let mut number = 1;
        let mut earlier = Vec::new();
        loop {
            let begun = Begun { date: today.to_owned() };
            let (begun_path, done_path) = (path(&prefix, number, "begun"), path(&prefix, number, "done"));
            let text = serde_json::to_vec(&begun).unwrap_or_default();
            let begun = match store.create_or_read(&begun_path, text.into()).await? {
                None => begun,
                Some(there) => read(&begun_path, &there)?,
            };
            let done = store.try_get(&done_path).await?;
            let is_last = done.is_none() || !place.is_daily() || begun.date == today;
            if let Some(done) = done {
                earlier.extend(read::<Vec<PublishedFolder>>(&done_path, &done)?);
            }
            if is_last {
                return Ok(Self { store, job, place, number, date: begun.date, earlier });
            }
            number += 1;
        }
    }

    fn targets(&self, job: &Job, stages: &[StageRecord]) -> Vec<Target> {
        targets(self.job, &self.date, self.place, job, stages)
    }

    async fn done(&self, folders: &[PublishedFolder]) -> Result<()> {
        let path = path(&format!("{}/publish", records::folder(self.job)), self.number, "done");
        let text = serde_json::to_vec_pretty(folders).unwrap_or_default();
        self.store.create(&path, text.into()).await?;
        Ok(())
    }
}

fn path(prefix: &str, number: u32, what: &str) -> String {
    format!("{prefix}/{number:05}.{what}.json")
}

fn read<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Record { path: path.to_owned(), reason: e.to_string() })
}
