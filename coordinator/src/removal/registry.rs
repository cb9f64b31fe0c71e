//! Which job names which artifact, and who is at work.

use std::collections::{BTreeMap, BTreeSet};

use data::artifact::{ArtifactId, Digest, SINCE, read_spec};
use data::store::Store;

use crate::records::{self, StageRecord};
use crate::{Error, Result};

/// What the control objects of a job say of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// Its stages are written down.
    pub(super) recorded: bool,
    /// It has a tombstone.
    pub(super) removed: bool,
    submitted: usize,
    ended: usize,
}

/// The jobs of a root. Kept up to date by [`Registry::refresh`], which reads only what is new.
pub(super) struct Registry<'a> {
    store: &'a Store,
    in_use: bool,
    lives: BTreeMap<String, Life>,
    needs: BTreeMap<String, BTreeSet<Digest>>,
}

impl<'a> Registry<'a> {
    /// Reads the jobs. `in_use`: another process runs a job here, and it may be any without records of submissions.
    pub(super) async fn read(store: &'a Store, in_use: bool) -> Result<Self> {
        let mut registry = Self { store, in_use, lives: BTreeMap::new(), needs: BTreeMap::new() };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Looks again.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        for entry in self.store.list(records::PREFIX).await? {
            let Some((job, file)) = records::job_and_file(&entry.path) else { continue };
            let life = lives.entry(job.to_owned()).or_default();
            match file.split_once('/').map_or(file, |(folder, _)| folder) {
                records::STAGES => life.recorded = true,
                records::TOMBSTONE => life.removed = true,
                "submitted" => life.submitted += 1,
                "ended" => life.ended += 1,
                _ => {}
            }
        }
        for (job, life) in &mut lives {
            if !life.recorded || self.needs.contains_key(job) {
                continue;
            }
            match records::read_stages(self.store, job).await {
                Ok(stages) => drop(self.needs.insert(job.clone(), needs(self.store, &stages).await?)),
                // Somebody removes it at this moment.
                Err(Error::Data(data::Error::NotFound { .. })) => life.recorded = false,
                Err(e) => return Err(e),
            }
        }
        self.lives = lives;
        Ok(())
    }

    /// What is known of a job.
    pub(super) fn life(&self, job: &str) -> Option<&Life> {
        self.lives.get(job)
    }

    /// Every job.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (&String, &Life)> {
        self.lives.iter()
    }

    /// Whether somebody works on a job.
    pub(super) fn is_active(&self, job: &str) -> bool {
        let at_work =
            |life: &Life| life.submitted > life.ended || (self.in_use && life.submitted == 0 && life.recorded);
        self.life(job).is_some_and(at_work)
    }

    /// A job that keeps an artifact.
    pub(super) fn holder(&self, digest: &Digest) -> Option<&str> {
        self.holders(digest).next()
    }

    /// A job other than this one that keeps an artifact.
    pub(super) fn holder_but(&self, digest: &Digest, job: &str) -> Option<&str> {
        self.holders(digest).find(|other| *other != job)
    }

    /// Whether somebody works on a job that names an artifact.
    pub(super) fn is_worked_on(&self, digest: &Digest) -> bool {
        self.holders(digest).any(|job| self.is_active(job))
    }

    fn holders<'s>(&'s self, digest: &Digest) -> impl Iterator<Item = &'s str> + use<'s> {
        let digest = digest.clone();
        let names = move |job: &str| self.needs.get(job).is_some_and(|needs| needs.contains(&digest));
        let keeping = |(job, life): &(&'s String, &Life)| life.recorded && (!life.removed || self.is_active(job));
        self.lives.iter().filter(keeping).map(|(job, _)| job.as_str()).filter(move |job| names(job))
    }
}

/// The digests that a job needs: of its stages, of what those are made from, and, where rows of an earlier artifact are
/// copied, of what that one was made from, with which it is compared.
pub(super) async fn needs(store: &Store, stages: &[StageRecord]) -> Result<BTreeSet<Digest>> {
    let mut needs = BTreeSet::new();
    for record in stages {
        needs.insert(record.digest.clone());
        let Some(inputs) = record.spec.as_ref().map(|spec| &spec.inputs) else { continue };
        needs.extend(inputs.values().cloned());
        let Some(since) = inputs.get(SINCE) else { continue };
        let earlier = ArtifactId { stage: record.stage, digest: since.clone() };
        let inputs = read_spec(store, &earlier).await?.map(|spec| spec.inputs).unwrap_or_default();
        // What the earlier one had copied from is of no use any more: else a chain of nights would keep them all.
        needs.extend(inputs.into_iter().filter(|(role, _)| role != SINCE).map(|(_, digest)| digest));
    }
    Ok(needs)
}
