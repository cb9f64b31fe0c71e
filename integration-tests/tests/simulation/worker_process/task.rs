//! Work on a lease: waiting, and a real commit of every shard.

use std::time::Duration;

use data::artifact::{self, ArtifactId, Aside, Attempt, Digest, Done, Plan};
use data::job::Stage;
use data::store::Store;
use proto::{Committed, FailureClass, FromWorker, Grant, Progress, ToWorker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::training::Standing;
use crate::catalogue::{SPLIT, compute, footer};
use crate::executor::Process;
use crate::world::World;

/// Work on a lease.
pub(super) struct Task {
    pub(super) world: World,
    pub(super) process: Process,
    pub(super) place: u64,
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
    pub(super) to_desk: UnboundedSender<FromWorker>,
    pub(super) standing: Standing,
}

/// Why work ended before it was done.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// Something went wrong.
    Failed(String),
}

impl From<data::Error> for Ended {
    fn from(e: data::Error) -> Self {
        Self::Failed(e.to_string())
    }
}

impl Task {
    pub(super) async fn run(self, grant: Grant, orders: UnboundedReceiver<ToWorker>) {
        let lease = grant.lease;
        let word = match self.shards(&grant, orders).await {
            Ok(()) => FromWorker::Ended { lease },
            Err(ended) => {
                let reason = match ended {
                    Ended::Stopped => "stopped".to_owned(),
                    Ended::Failed(reason) => reason,
                };
                self.world.sim.log(|| format!("worker {} {lease}: {reason}", self.process));
                let class = if self.stop.is_cancelled() { FailureClass::Returned } else { FailureClass::Retry };
                FromWorker::Failed { lease, class, reason }
            }
        };
        let _ = self.to_desk.send(word);
    }

    /// Computes and commits the shards of a lease.
    async fn shards(&self, grant: &Grant, orders: UnboundedReceiver<ToWorker>) -> Result<(), Ended> {
        let stage: Stage = grant.stage.parse().map_err(|_| Ended::Stopped)?;
        let digest = Digest::try_from(grant.digest.clone()).map_err(|_| Ended::Stopped)?;
        let id = ArtifactId { stage, digest };
        let Some(plan) = artifact::read_plan(&self.store, &id).await? else {
            self.world.sim.violated(format!("{id} was granted before it was planned"));
            return Err(Ended::Stopped);
        };
        if stage == Stage::TrainRanker {
            return self.train(grant, &id, &plan, orders).await;
        }
        for shard in grant.shards.iter().copied() {
            let began = self.world.sim.now();
            self.compute(grant, &id, shard).await?;
            self.finish(grant, &id, &plan, shard, began).await?;
        }
        Ok(())
    }

    /// Commits a shard and says so.
    pub(super) async fn finish(
        &self,
        grant: &Grant,
        id: &ArtifactId,
        plan: &Plan,
        shard: u32,
        began: Duration,
    ) -> Result<(), Ended> {
        let attempt = format!("{}-{}-{shard}", self.process, grant.lease);
        let done = self.commit(id, plan, compute(id, shard, plan.shards, &attempt)).await?;
        let took = self.world.sim.now() - began;
        let committed = Committed { shard, rows: done.rows, took, rejected: done.rejected };
        let _ = self.to_desk.send(FromWorker::Committed { lease: grant.lease, committed });
        Ok(())
    }

    /// Commits a shard, or completes that it is put aside.
    async fn commit(&self, id: &ArtifactId, plan: &Plan, attempt: Attempt) -> Result<Done, Ended> {
        let (shard, footer) = (attempt.shard, footer(id, &attempt.id));
        match artifact::commit_shard(&self.store, id, plan, attempt).await {
            Ok(commit) => Ok(commit.done().clone()),
            Err(data::Error::PutAside { .. }) => {
                self.world.sim.log(|| format!("shard {shard} of {id} was put aside before"));
                match artifact::quarantine(&self.store, id, Some(SPLIT), plan, shard, &footer).await? {
                    Aside::Done(done) => Ok(done),
                    Aside::Computed => {
                        self.world.sim.violated(format!("shard {shard} of {id} has parts of two minds"));
                        Err(Ended::Stopped)
                    }
                }
            }
            Err(e) => Err(e.into()),
        }
    }

    /// A shard that is bad for workers kills them, or lets them hang for so long that they count as dead.
    async fn suffer(&self, id: &ArtifactId, shard: u32) {
        let sim = &self.world.sim;
        if sim.chance(400) {
            sim.log(|| format!("shard {shard} of {id} kills worker {}", self.process));
            self.world.kill(self.process);
            std::future::pending::<()>().await;
        } else if sim.chance(600) {
            sim.log(|| format!("shard {shard} of {id} stuns worker {}", self.process));
            sim.freeze(self.process, sim.between(3500, 9000));
            sim.sleep(Duration::from_millis(1)).await;
        }
    }

    async fn compute(&self, grant: &Grant, id: &ArtifactId, shard: u32) -> Result<(), Ended> {
        let sim = &self.world.sim;
        let slow = if self.place == 0 { 4 } else { 1 };
        for step in 1..=3 {
            sim.sleep(sim.between(50, 500 * slow)).await;
            if self.world.poison.as_ref().is_some_and(|(poison, at)| poison == id && *at == shard) {
                self.suffer(id, shard).await;
            }
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            let progress = Progress { done: step, total: 3, unit: "steps".into(), note: String::new() };
            let _ = self.to_desk.send(FromWorker::Progress { lease: grant.lease, progress });
        }
        Ok(())
    }
}
