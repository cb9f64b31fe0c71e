//! `gc`: what nobody needs and nobody asked to remove.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data::artifact::{SUCCESS, done_records};
use data::store::Store;
use data::tables::part_name_index;

use super::census::{Found, Object, census};
use super::erase::{Outcome, erase};
use super::mark::{DEAD, Mark, standing};
use super::registry::Registry;
use super::{Freed, Kind, Limits, job};
use crate::Result;

/// Where an object is written to learn the store's time.
const CLOCK: &str = "_control/v1/gc";

/// Folders in which nothing is kept: files of a local store before they get their name, `doctor`'s tries, our own clock.
const SCRATCH: [&str; 3] = ["_control/v1/staging", "_control/v1/doctor", CLOCK];

/// Removes what is left of removed jobs, artifacts that no job names, unfinished attempts, checkpoints of finished
/// trainings, and scratch. But for the first, only what is older than `limits.older_than` by the store's own time.
///
/// # Errors
/// A record that cannot be read, for what it names is not known; the store's own failures.
pub async fn collect(store: &Store, limits: Limits) -> Result<Freed> {
    let now = store_time(store).await?;
    let mut this = Collector {
        store,
        registry: Registry::read(store, limits.in_use).await?,
        now,
        limits,
        freed: Freed { dry_run: limits.dry_run, ..Freed::default() },
    };
    this.removed_jobs().await?;
    let all = census(store).await?;
    this.dead_marks().await?;
    for found in all.values() {
        match this.registry.holder(&found.id.digest) {
            None => this.unnamed(found).await?,
            Some(_) if this.registry.is_worked_on(&found.id.digest) => {}
            Some(_) => {
                this.attempts(found).await?;
                this.checkpoints(found).await?;
            }
        }
    }
    for folder in SCRATCH {
        this.scratch(folder).await?;
    }
    Ok(this.freed)
}

/// What time it is for the store: the age of an object is compared with nothing else.
async fn store_time(store: &Store) -> Result<SystemTime> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = format!("{CLOCK}/{nanos}-{}", std::process::id());
    store.create(&path, path.clone().into()).await?;
    let stat = store.stat(&path).await?;
    store.delete(&path).await?;
    store.prune(CLOCK).await?;
    // Somebody has collected the object itself: then nothing is old.
    Ok(stat.map_or(UNIX_EPOCH, |stat| stat.modified))
}

struct Collector<'a> {
    store: &'a Store,
    registry: Registry<'a>,
    now: SystemTime,
    limits: Limits,
    freed: Freed,
}

impl Collector<'_> {
    fn is_older(&self, modified: SystemTime, than: Duration) -> bool {
        self.now.duration_since(modified).is_ok_and(|age| age >= than)
    }

    fn is_old(&self, object: &Object) -> bool {
        self.is_older(object.modified, self.limits.older_than)
    }

    /// Goes on with what `rm` could not end.
    async fn removed_jobs(&mut self) -> Result<()> {
        let removed = self.registry.jobs().filter(|(_, life)| life.removed).map(|(job, _)| job.clone());
        for id in removed.collect::<Vec<_>>() {
            if !self.registry.is_active(&id) {
                job::remove(self.store, &mut self.registry, &id, &mut self.freed).await?;
            }
        }
        self.freed.kept.clear(); // what is shared was not asked for
        self.registry.refresh().await
    }

    /// Marks of removers that died, where nothing is to be removed any more.
    async fn dead_marks(&mut self) -> Result<()> {
        let dead = DEAD.min(self.limits.older_than);
        for (digest, path, modified) in standing(self.store).await? {
            let named = digest.clone().try_into().is_ok_and(|digest| self.registry.holder(&digest).is_some());
            if self.is_older(modified, dead) && (named || !self.is_there(&digest).await?) {
                self.freed.add(Kind::Scratch, &path, (1, 0));
                self.delete(&[path]).await?;
            }
        }
        if self.limits.dry_run { Ok(()) } else { Ok(self.store.prune("_control/v1/removing").await?) }
    }

    async fn is_there(&self, digest: &str) -> Result<bool> {
        let all = census(self.store).await?;
        Ok(all.keys().any(|there| there.as_str() == digest))
    }

    /// An artifact that no job names.
    async fn unnamed(&mut self, found: &Found) -> Result<()> {
        let name = found.id.to_string();
        let counted = self.freed.removed.iter().any(|r| r.kind == Kind::Artifact && r.name == name);
        if counted || !found.objects().all(|object| self.is_old(object)) {
            return Ok(());
        }
        let size = match self.limits.dry_run {
            true => found.size(),
            false => match erase(self.store, &mut self.registry, &found.id).await? {
                Outcome::Freed(objects, bytes) => (objects, bytes),
                Outcome::Kept(_) => return Ok(()), // a job that was submitted meanwhile
            },
        };
        self.freed.add(Kind::Artifact, name, size);
        Ok(())
    }

    /// Parts and model files that no done record names.
    async fn attempts(&mut self, found: &Found) -> Result<()> {
        let parts = |objects: &[Object]| objects.iter().filter(|o| part_name_index(&o.name).is_some()).count();
        // `finish` has swept a finished table; as many parts as shards are those of the records.
        let swept = |objects: &Vec<Object>| objects.iter().any(|o| o.name == SUCCESS) && parts(objects) == found.done();
        let tables = found.tables.values().filter(|objects| !swept(objects)).flatten();
        let tables = tables.filter(|object| part_name_index(&object.name).is_some());
        let model = found.model.iter().filter(|_| found.done() == 0);
        let suspects: Vec<&Object> = tables.chain(model).filter(|object| self.is_old(object)).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        if self.limits.dry_run {
            let strays = self.strays(found, &suspects).await?;
            self.freed.add(Kind::Attempt, found.id.to_string(), sum(&strays));
            return Ok(());
        }
        // The mark keeps submissions from beginning to work on it.
        let mark = Mark::set(self.store, &found.id.digest).await?;
        self.registry.refresh().await?;
        if !self.registry.is_worked_on(&found.id.digest) {
            let strays = self.strays(found, &suspects).await?;
            let paths: Vec<String> = strays.iter().map(|object| object.path.clone()).collect();
            self.store.delete_all(&paths).await?;
            self.freed.add(Kind::Attempt, found.id.to_string(), sum(&strays));
        }
        mark.lift().await
    }

    /// Those of the suspects that no record names now, and that nobody has written anew.
    async fn strays<'f>(&self, found: &Found, suspects: &[&'f Object]) -> Result<Vec<&'f Object>> {
        let records = done_records(self.store, &found.id).await?;
        let parts = records.iter().flat_map(|done| done.parts.iter().map(|part| &part.path));
        let named: BTreeSet<&String> =
            parts.chain(records.iter().flat_map(|done| done.files.iter().map(|file| &file.path))).collect();
        let mut strays = Vec::new();
        for suspect in suspects.iter().filter(|suspect| !named.contains(&suspect.path)) {
            let stat = self.store.stat(&suspect.path).await?;
            if stat.is_some_and(|stat| stat.modified == suspect.modified) {
                strays.push(*suspect);
            }
        }
        Ok(strays)
    }

    /// Checkpoints of a training that has its done record: nobody will go on from them.
    async fn checkpoints(&mut self, found: &Found) -> Result<()> {
        let all: Vec<&Object> = found.control.iter().filter(|object| object.name.starts_with("checkpoints/")).collect();
        if found.done() == 0 || all.is_empty() || !all.iter().all(|object| self.is_old(object)) {
            return Ok(());
        }
        self.freed.add(Kind::Checkpoints, found.id.to_string(), sum(&all));
        let paths: Vec<String> = all.iter().map(|object| object.path.clone()).collect();
        self.delete(&paths).await?;
        self.prune(&format!("{}/checkpoints", found.id.control_prefix())).await
    }

    async fn scratch(&mut self, folder: &str) -> Result<()> {
        let mut old = Vec::new();
        let mut bytes = 0;
        for (path, stat) in self.store.list_stamped(folder).await? {
            if self.is_older(stat.modified, self.limits.older_than) {
                bytes += stat.size;
                old.push(path);
            }
        }
        self.freed.add(Kind::Scratch, folder, (old.len() as u64, bytes));
        self.delete(&old).await
    }

    async fn delete(&self, paths: &[String]) -> Result<()> {
        if self.limits.dry_run { Ok(()) } else { Ok(self.store.delete_all(paths).await?) }
    }

    async fn prune(&self, folder: &str) -> Result<()> {
        if self.limits.dry_run { Ok(()) } else { Ok(self.store.prune(folder).await?) }
    }
}

fn sum(objects: &[&Object]) -> (u64, u64) {
    (objects.len() as u64, objects.iter().map(|object| object.size).sum())
}
