//! What is done for a stage beside the loop: its shards are found, it is completed, shards are put aside.

use data::artifact::{self, ArtifactId};
use data::job::Stage;
use futures::{FutureExt, TryFutureExt};
use tracing::{Instrument, info_span, warn};

use crate::core::Event;
use crate::inbox::Input;
use crate::opening::{open_artifact, patiently, tally, telling};
use crate::quarantine::Condemned;
use crate::shell::Shell;

impl Shell {
    pub(crate) fn open(&mut self, id: ArtifactId) {
        let Some(stage) = self.stages.get(&id).cloned() else { return };
        self.quarantines.end(&id);
        let prepare = stage.needs.iter().find(|n| n.stage == Stage::Prepare).cloned();
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        let span = info_span!("open", artifact = %id);
        let work = async move {
            let open = || open_artifact(&store, &stage, prepare.as_ref()).boxed();
            let (rows, done) = match patiently("open a stage", open).await {
                Ok(opened) => opened,
                Err(e) => {
                    let broken = Event::Broken { artifact: id, class: e.class(), reason: e.to_string() };
                    return drop(inbox.send(Input::Event(broken)).await);
                }
            };
            let opened = Event::Opened { artifact: id.clone(), rows, done: done.clone() };
            let _ = inbox.send(Input::Event(opened)).await;
            match patiently("read what was done before", || tally(&store, &id, &done).boxed()).await {
                Ok(records) => drop(inbox.send(Input::Event(Event::Tallied { artifact: id, records })).await),
                Err(e) => warn!(artifact = %id, error = %e, "the status will lack rows that were rejected before"),
            }
        };
        tokio::spawn(work.instrument(span));
    }

    pub(crate) fn finish(&self, id: ArtifactId) {
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        let span = info_span!("finish", artifact = %id);
        let work = async move {
            let event = match patiently("finish a stage", || artifact::finish(&store, &id).err_into().boxed()).await {
                Ok(records) => {
                    // It may end before all that was done earlier has been read.
                    let tallied = Event::Tallied { artifact: id.clone(), records: telling(records) };
                    let _ = inbox.send(Input::Event(tallied)).await;
                    Event::Finished(id)
                }
                Err(e) => Event::Broken { artifact: id, class: e.class(), reason: e.to_string() },
            };
            let _ = inbox.send(Input::Event(event)).await;
        };
        tokio::spawn(work.instrument(span));
    }

    /// Puts a shard aside, unless that is more than the job can spare.
    pub(crate) fn quarantine(&mut self, id: &ArtifactId, shard: u32, reason: String) {
        let Some(job) = self.core.wanting(id).find_map(|job| self.jobs.get(job)) else {
            let (inbox, spared) = (self.inbox.clone(), Event::Spared { artifact: id.clone(), shard });
            tokio::spawn(async move { inbox.send(Input::Event(spared)).await });
            return;
        };
        let condemned = Condemned { shard, reason, limit: job.job.limits.max_rejected };
        let split = self.stages.get(id).and_then(|s| s.split);
        self.quarantines.add(&self.store, &self.inbox, (id, split), condemned);
    }
}
