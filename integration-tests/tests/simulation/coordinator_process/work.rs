//! What a coordinator does with the store, beside its loop.

use std::time::Duration;

use coordinator::core::Event;
use coordinator::opening::{open_artifact, tally};
use coordinator::quarantine::{Condemned, PutAside};
use coordinator::submissions::{self, Ended};
use data::artifact::{self, ArtifactId, SUCCESS};
use data::job::MaxRejected;
use data::tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::{FailureClass, JobState};

use super::{Coordinator, Input};
use crate::catalogue::SPLIT;

impl Coordinator {
    pub(super) fn open(&self, id: ArtifactId) {
        let stages = self.world.catalogue.all_stages();
        let Some(stage) = stages.get(&id).cloned() else { return };
        let (store, prepare) = (self.store.clone(), self.world.catalogue.prepare.artifact.clone());
        let open = move || {
            let (store, stage, prepare) = (store.clone(), stage.clone(), prepare.clone());
            async move {
                let (rows, done) = open_artifact(&store, &stage, Some(&prepare)).await?;
                Ok(Event::Opened { artifact: stage.artifact, rows, done })
            }
            .boxed()
        };
        self.beside(open, id);
    }

    /// Reads what was done before, as far as the store lets it.
    pub(super) fn tally(&self, artifact: ArtifactId, done: Vec<u32>) {
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        self.world.sim.spawn(self.process, async move {
            if let Ok(records) = tally(&store, &artifact, &done).await {
                let _ = inbox.send(Input::Event(Event::Tallied { artifact, records }));
            }
        });
    }

    pub(super) fn finish(&self, id: ArtifactId) {
        let (store, finished) = (self.store.clone(), id.clone());
        let finish = move || {
            let (store, id) = (store.clone(), id.clone());
            async move { Ok(artifact::finish(&store, &id).await.map(|_| Event::Finished(id))?) }.boxed()
        };
        self.beside(finish, finished);
    }

    pub(super) fn quarantine(&self, id: ArtifactId, shard: u32, reason: String) {
        if self.core.wanting(&id).next().is_none() {
            return drop(self.inbox.send(Input::Event(Event::Spared { artifact: id, shard })));
        }
        let split = Some(SPLIT);
        let (store, artifact) = (self.store.clone(), id.clone());
        let put = move || {
            let (store, id, reason) = (store.clone(), artifact.clone(), reason.clone());
            async move {
                let condemned = Condemned { shard, reason, limit: MaxRejected::Rows(u64::MAX) };
                Ok(match PutAside::read(&store, &id, split).await?.add(&store, &condemned).await? {
                    Some(committed) => Event::Quarantined { artifact: id, committed },
                    None => Event::Spared { artifact: id, shard },
                })
            }
            .boxed()
        };
        self.beside(put, id);
    }

    /// Does something beside the loop, patiently, and tells the loop how it went.
    fn beside(
        &self,
        attempt: impl Fn() -> BoxFuture<'static, coordinator::Result<Event>> + Send + 'static,
        artifact: ArtifactId,
    ) {
        let (sim, inbox) = (self.world.sim.clone(), self.inbox.clone());
        self.world.sim.spawn(self.process, async move {
            for pause in [200, 1000, 5000] {
                match attempt().await {
                    Ok(event) => return drop(inbox.send(Input::Event(event))),
                    Err(e) if e.class() == FailureClass::Retry => sim.sleep(Duration::from_millis(pause)).await,
                    Err(e) => return sim.violated(format!("{artifact}: {e}")),
                }
            }
            let event = match attempt().await {
                Ok(event) => event,
                Err(e) => Event::Broken { artifact, class: e.class(), reason: e.to_string() },
            };
            let _ = inbox.send(Input::Event(event));
        });
    }

    /// What must not be done: the folders are called complete before the first shard.
    pub(super) fn succeed_early(&self, id: &ArtifactId) {
        let (store, success) = (self.store.clone(), format!("{}/{SUCCESS}", id.table_prefix(Table::Rankings)));
        self.world.sim.spawn(self.process, async move { drop(store.create(&success, "".into()).await) });
    }

    pub(super) fn settle(&self, job: String, state: JobState) {
        let Some(round) = self.rounds.get(&job).copied() else { return };
        let ended = Ended::of(state, "", None);
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        self.world.sim.spawn(self.process, async move {
            while submissions::end(&store, &job, round, &ended).await.is_err() {}
            let _ = inbox.send(Input::Settled(job, round, state));
        });
    }
}
