//! What the journals of jobs have to say of events and decisions.

use data::artifact::ArtifactId;
use proto::{Committed, FromWorker, Generation, JobId, LeaseId, WorkerId};

use crate::core::{Action, Event};
use crate::journal::Entry;
use crate::shell::Shell;

impl Shell {
    /// What a job's journal has to say of an event, while the core still knows whom it concerns.
    pub(crate) fn note(&mut self, event: &Event) {
        let (worker, level, text) = match event {
            Event::Said(worker, FromWorker::Failed { class, reason, .. })
                if *class != proto::FailureClass::Returned =>
            {
                (*worker, "warn", format!("failed: {reason}"))
            }
            Event::Said(worker, FromWorker::Committed { committed, .. }) => {
                let Committed { shard, rows, took, .. } = committed;
                (*worker, "info", format!("shard {shard} done: {rows} rows in {:.1} s", took.as_secs_f64()))
            }
            Event::Left(worker) => (*worker, "warn", "the worker is gone; what it held goes to others".to_owned()),
            Event::Quarantined { artifact, committed } => {
                let (rows, shard) = (committed.rejected.values().sum::<u64>(), committed.shard);
                let text = format!("shard {shard} is put aside with {rows} rows, see the table of rejected rows");
                return self.note_stage(artifact, "error", text);
            }
            Event::Broken { artifact, reason, .. } => return self.note_stage(artifact, "error", reason.clone()),
            Event::Opened { artifact, rows, done } => {
                let shards = if rows.len() == 1 { "shard" } else { "shards" };
                let text = format!("{} {shards}, {} done before", rows.len(), done.len());
                return self.note_stage(artifact, "info", text);
            }
            Event::Finished(artifact) => return self.note_stage(artifact, "info", "complete".to_owned()),
            _ => return,
        };
        let Some((job, stage)) = self.core.lease_of(worker).and_then(|lease| self.core.purpose(lease)) else { return };
        let name = self.core.name_of(worker).unwrap_or_default();
        self.journal.note(job, Entry::now(level, &stage, name, text));
    }

    fn note_stage(&mut self, artifact: &ArtifactId, level: &str, text: String) {
        let stage = self.core.stage_of(artifact);
        for job in self.core.wanting(artifact) {
            self.journal.note(job, Entry::now(level, &stage, "", text.clone()));
        }
    }

    /// A line about a whole job.
    pub(crate) fn note_job(&mut self, job: &JobId, level: &str, text: String) {
        self.journal.note(job, Entry::now(level, "", "", text));
    }

    /// What becomes of gangs and leases, where nobody would see why.
    pub(crate) fn note_actions(&mut self, actions: &[Action]) {
        let mut aborted = None;
        for action in actions {
            match action {
                Action::Begin(worker, generation) if generation.rank == 0 => {
                    self.note_lease(*worker, generation.lease, "info", together(generation));
                }
                // One line for all of its members.
                Action::Abort(worker, lease, generation, reason) if aborted != Some(*generation) => {
                    aborted = Some(*generation);
                    self.note_lease(*worker, *lease, "warn", format!("{generation} is aborted: {reason}"));
                }
                Action::Revoke(worker, lease, reason) => {
                    self.note_lease(*worker, *lease, "info", format!("the lease is taken back: {reason}"));
                }
                _ => {}
            }
        }
    }

    fn note_lease(&mut self, worker: WorkerId, lease: LeaseId, level: &str, text: String) {
        let Some((job, stage)) = self.core.purpose(lease) else { return };
        let name = self.core.name_of(worker).unwrap_or_default();
        self.journal.note(job, Entry::now(level, &stage, name, text));
    }
}

/// Who trains together.
fn together(generation: &Generation) -> String {
    let names: Vec<&str> = generation.members.iter().map(|member| member.name.as_str()).collect();
    let workers = if names.len() == 1 { "worker" } else { "workers" };
    format!("{} trains with {} {workers}: {}", generation.number, names.len(), names.join(", "))
}
