//! Freeing space: `rm` of a job and `gc` of a root.
//!
//! Every other effect of this program is an object that is created once and never changes, so that whoever comes late
//! loses and nothing is lost. A delete has no such guard: "remove this part" may reach the store after somebody has
//! written the part anew. This is how deletes are kept away from what anybody needs.
//!
//! ```text
//! _control/v1/jobs/<id>/removed.json              the tombstone of a job; permanent
//! _control/v1/removing/<digest>/<number>.json     marks of those that are removing an artifact now; gone with it
//! ```
//!
//! **Who needs what.** A job names the artifacts of its stages and the digests that those are made from, all of it in
//! `stages.json`, which is written when the job is submitted and before anything is looked up. Jobs without a tombstone
//! keep what they name, and so does a job with one while somebody works on it. A record that cannot be read stops the
//! removal: nobody can know what it named.
//!
//! **Against submissions.** The remover creates its mark, then lists the jobs. A submission writes its record, then lists
//! the marks ([`refuse_marked`]). Stores list what was created before, so at least one of the two sees the other: the
//! remover keeps an artifact that is named, the submission waits until marks are gone and only then asks what is done.
//! The same once more, for whoever takes up a job that is written down already: `gc` sets its mark, then looks who is at
//! work before it takes parts without a record; a submission, or `resume`, notes that it is wanted, then looks at the
//! marks before it gives out work. For a whole job the same holds of tombstone and record: a submission that finds a tombstone takes the next id
//! (`<id>.2`), and a remover that finds the job at work after its tombstone removes nothing.
//!
//! **In the middle of it.** Objects go in the order `_SUCCESS`, done records, all else, plan and spec, and each step
//! begins when the one before has ended. So a remover may die after any delete: the artifact is then unfinished, no
//! done record speaks of a part that is gone, and a part without a record is what a dead attempt leaves, which the
//! next one takes as its own. The mark stays behind; `rm` of the same job and `gc` go on where it died.
//!
//! **Zombies.** A worker whose lease is long gone may still create a part. Before the delete: the part goes, or is younger
//! than what was listed. Afterwards: it lies there without a record, counts for nothing, and the next `gc` takes it. A
//! remover that slept looks before every batch whether its mark is still there; one that was overtaken finds it gone
//! and stops. What is left is a process that is stopped between this look and its request, for as long as
//! another one needs to remove the rest, a job to be submitted and a shard to be computed; and a worker that sleeps
//! between a part and its record for longer than `gc` lets parts lie. Neither can pass unseen: `finish` compares
//! every record with what lies there before it creates `_SUCCESS`.
//!
//! **Age** is the store's own: an object is as old as it is older than one that the store has just taken.

mod census;
mod erase;
mod gc;
mod job;
mod mark;
mod registry;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

pub use gc::collect;
pub use job::remove_job;
pub(crate) use mark::{refuse_marked, write_down};

/// How much may be removed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Say what would go, and leave it.
    pub dry_run: bool,
    /// Another process of this machine runs a job under the root, and no record says which.
    pub in_use: bool,
    /// What `gc` leaves alone because it is younger.
    pub older_than: Duration,
}

/// What kind of thing was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Tables, models and records of a stage that no job names.
    Artifact,
    /// The records of a removed job.
    Job,
    /// Parts and files that no done record names.
    Attempt,
    /// Checkpoints of a finished training.
    Checkpoints,
    /// Files that never got their name, and scratch of `doctor`.
    Scratch,
}

/// Something that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Its kind.
    pub kind: Kind,
    /// Which.
    pub name: String,
    /// Its objects.
    pub objects: u64,
    /// Their sizes together.
    pub bytes: u64,
}

/// Something that stays although its removal was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Which.
    pub name: String,
    /// A job that names it.
    pub job: String,
}

/// What a removal did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// What is gone.
    pub removed: Vec<Removed>,
    /// What stays.
    pub kept: Vec<Kept>,
    /// Whether nothing was really removed.
    pub dry_run: bool,
}

impl Freed {
    /// Objects and bytes in all.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        self.removed.iter().fold((0, 0), |(objects, bytes), r| (objects + r.objects, bytes + r.bytes))
    }

    fn add(&mut self, kind: Kind, name: impl Into<String>, (objects, bytes): (u64, u64)) {
        if objects > 0 {
            self.removed.push(Removed { kind, name: name.into(), objects, bytes });
        }
    }
}
