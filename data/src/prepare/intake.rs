//! Where every format's reader puts its rows: checks what all formats share, and counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gauge::Gauge;
use super::spool::{InteractionSpool, ItemMeta, ItemSpool, Time};
use crate::input::{Reason, Rejects};
use crate::job::{Dataset, Limits};
use crate::{Error, Result};

/// One parsed interaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interaction<'a> {
    pub(crate) user: &'a str,
    pub(crate) item: &'a str,
    /// `None` where the format has no ratings: such an interaction passes any `min_rating`.
    pub(crate) rating: Option<f64>,
    pub(crate) time: Time,
}

/// The place of a row, for the `rejected` table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) line: u64,
}

/// Takes rows from the readers and spools the good ones.
pub(crate) struct Intake {
    min_rating: f64,
    rejects: Rejects,
    interactions: InteractionSpool,
    items: ItemSpool,
    below_min_rating: u64,
    gauge: Gauge,
    abandoned: Arc<AtomicBool>,
}

/// Tells a reader on another thread, by being dropped, that nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Interest {
    gauge: Gauge,
    abandoned: Arc<AtomicBool>,
}

impl Interest {
    /// Of somebody who also wants to see how far the reader is.
    pub(crate) fn of(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), abandoned: Arc::default() }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// What the readers left behind.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) rejects: Rejects,
    pub(crate) interactions: u64,
    pub(crate) items: u64,
    pub(crate) below_min_rating: u64,
    pub(crate) largest_number: u64,
}

impl Intake {
    pub(crate) fn new(dataset: &Dataset, limits: &Limits, folder: &Path, interest: &Interest) -> Result<Self> {
        Ok(Self {
            min_rating: dataset.min_rating,
            rejects: Rejects::new(limits.max_rejected),
            interactions: InteractionSpool::create(folder)?,
            items: ItemSpool::create(folder)?,
            below_min_rating: 0,
            gauge: interest.gauge.clone(),
            abandoned: interest.abandoned.clone(),
        })
    }

    /// Takes one row of the interactions, parsed or not.
    pub(crate) fn interaction(&mut self, at: Place<'_>, row: Result<Interaction<'_>, Reason>) -> Result<()> {
        self.take_row()?;
        match row.and_then(check) {
            Ok(row) if row.rating.is_some_and(|r| r < self.min_rating) => {
                self.below_min_rating += 1;
                Ok(())
            }
            Ok(row) => self.interactions.push(row.user, row.item, row.time),
            Err(reason) => self.rejects.reject(at.file, Some(at.line), reason),
        }
    }

    /// Takes one row of the items, parsed or not.
    pub(crate) fn item(&mut self, at: Place<'_>, row: Result<ItemMeta<'_>, Reason>) -> Result<()> {
        self.take_row()?;
        match row {
            Ok(item) if is_blank(item.id) => self.rejects.reject(at.file, Some(at.line), "empty item id"),
            Ok(item) => self.items.push(at.file, at.line, item),
            Err(reason) => self.rejects.reject(at.file, Some(at.line), reason),
        }
    }

    /// Takes what a row of interactions says about its item; the row was counted as an interaction.
    pub(crate) fn item_of_interaction(&mut self, at: Place<'_>, item: ItemMeta<'_>) -> Result<()> {
        if is_blank(item.id) { Ok(()) } else { self.items.push(at.file, at.line, item) }
    }

    fn take_row(&mut self) -> Result<()> {
        self.rejects.count_row();
        self.gauge.add_row();
        if self.abandoned.load(Ordering::Relaxed) { Err(Error::Abandoned) } else { Ok(()) }
    }

    /// Closes the spool.
    pub(crate) fn finish(self) -> Result<Taken> {
        let Self { rejects, interactions, items, below_min_rating, .. } = self;
        let (interactions, largest_number) = interactions.finish()?;
        Ok(Taken { rejects, interactions, items: items.finish()?, below_min_rating, largest_number })
    }
}

fn check(row: Interaction<'_>) -> Result<Interaction<'_>, Reason> {
    if is_blank(row.user) {
        return Err("empty user id");
    }
    if is_blank(row.item) {
        return Err("empty item id");
    }
    match row.rating {
        Some(rating) if !rating.is_finite() => Err("rating is not a number"),
        _ => Ok(row),
    }
}

fn is_blank(id: &str) -> bool {
    id.trim().is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::job::Job;

    #[test]
    fn reading_ends_when_nobody_waits_for_it() {
        let job = Job::parse("job", "schema_version = 1\nname = 'a'\nstages = ['prepare']\ndataset.path = 'x'\n", &[]);
        let (job, folder) = (job.unwrap(), tempfile::tempdir().unwrap());
        let gauge = Gauge::default();
        let interest = Interest::of(&gauge);
        let mut intake = Intake::new(&job.dataset, &job.limits, folder.path(), &interest).unwrap();
        let at = Place { file: "x", line: 1 };
        intake.interaction(at, Err("wrong")).unwrap();
        drop(interest);
        assert!(matches!(intake.interaction(at, Err("wrong")), Err(Error::Abandoned)));
        assert_eq!((gauge.rows(), gauge.phase()), (2, "reading"));
    }
}
