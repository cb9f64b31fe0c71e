//! One simulated worker: what it has in hand, and its conversation with a coordinator.

use std::time::Duration;

use data::artifact::{self, ArtifactId, Attempt, Commit, Digest, Plan, Stats};
use data::job::Stage;
use data::store::Store;
use proto::pb::workers_client::WorkersClient;
use proto::{Claim, Committed, FailureClass, FromWorker, Grant, LeaseId, PROTOCOL, Register, ToWorker, pb};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::Heard;

/// What a worker remembers between sessions.
pub(super) struct Hand {
    name: String,
    store: Store,
    shard: Duration,
    random: u64,
    term: u64,
    work: Option<Work>,
    /// Since when it has had nothing to do, if it ever had.
    idle: Option<Instant>,
}

/// A lease, until the next one replaces it.
struct Work {
    lease: LeaseId,
    artifact: ArtifactId,
    of: u32,
    /// Not committed yet.
    shards: Vec<u32>,
    committed: Vec<Committed>,
    end: Option<FromWorker>,
    /// When the first shard is computed.
    due: Instant,
}

type Line = mpsc::Sender<FromWorker>;

impl Hand {
    pub(super) fn new(name: String, seed: u64, shard: Duration, store: Store) -> Self {
        Self { name, store, shard, random: seed, term: 0, work: None, idle: None }
    }

    /// One session until it ends for whatever reason. Says whether it had begun.
    pub(super) async fn session(&mut self, channel: Channel, heard: &Heard) -> bool {
        let (line, outbox) = mpsc::channel(64);
        let Some((heartbeat, mut stream)) = self.register(channel, &line, outbox).await else { return false };
        heard.joined();
        self.repeat(&line).await;
        let first = Instant::now() + heartbeat.mul_f64(self.draw());
        let mut beat = tokio::time::interval_at(first, heartbeat);
        loop {
            let due = self.work.as_ref().filter(|work| work.end.is_none()).map(|work| work.due);
            let went = tokio::select! {
                message = stream.next() => match message.map(|said| said.map(ToWorker::try_from)) {
                    Some(Ok(Ok(message))) => self.obey(message, &line, heard).await,
                    _ => false,
                },
                _ = beat.tick() => line.send(FromWorker::Heartbeat).await.is_ok(),
                () = tokio::time::sleep_until(due.unwrap_or(first)), if due.is_some() => self.commit(&line, heard).await,
            };
            if !went {
                heard.note(|report| report.broken += 1);
                self.idle = None;
                return true;
            }
        }
    }

    async fn register(
        &mut self,
        channel: Channel,
        line: &Line,
        outbox: mpsc::Receiver<FromWorker>,
    ) -> Option<(Duration, Streaming<pb::CoordinatorMessage>)> {
        let claim = self.work.as_ref().map(|work| Claim {
            lease: work.lease,
            stage: work.artifact.stage.to_string(),
            digest: work.artifact.digest.to_string(),
            shards: work.shards.clone(),
            generation: None,
        });
        let register = Register {
            protocol: PROTOCOL,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.clone(),
            threads: 1,
            device: "simulated".to_owned(),
            term: self.term,
            claims: claim.into_iter().collect(),
            job: None,
        };
        line.send(FromWorker::Register(register)).await.ok()?;
        let said = ReceiverStream::new(outbox).map(pb::WorkerMessage::from);
        let mut stream = WorkersClient::new(channel).session(said).await.ok()?.into_inner();
        match ToWorker::try_from(stream.message().await.ok()??) {
            Ok(ToWorker::Welcome(welcome)) if welcome.term >= self.term => {
                self.term = welcome.term;
                Some((welcome.heartbeat, stream))
            }
            _ => None,
        }
    }

    /// Says again what a coordinator may have missed.
    async fn repeat(&self, line: &Line) {
        let Some(work) = &self.work else { return };
        for committed in &work.committed {
            let _ = line.send(FromWorker::Committed { lease: work.lease, committed: committed.clone() }).await;
        }
        if let Some(end) = &work.end {
            let _ = line.send(end.clone()).await;
        }
    }

    async fn obey(&mut self, message: ToWorker, line: &Line, heard: &Heard) -> bool {
        match message {
            ToWorker::Grant(grant) => {
                heard.granted(self.idle.take().map(|since| since.elapsed()));
                self.work = Some(self.begin(grant));
                true
            }
            ToWorker::Revoke { lease, reason } => {
                heard.note(|report| report.revoked += 1);
                if self.work.as_ref().is_none_or(|work| work.lease != lease) {
                    return true;
                }
                let failed = FromWorker::Failed { lease, class: FailureClass::Returned, reason };
                self.end(failed, line).await
            }
            ToWorker::Welcome(_) | ToWorker::Generation(_) | ToWorker::Regroup { .. } | ToWorker::Abort { .. } => true,
            ToWorker::Refused(_) | ToWorker::Shutdown(_) | ToWorker::JobEnded { .. } => false,
        }
    }

    fn begin(&mut self, grant: Grant) -> Work {
        let stage: Stage = grant.stage.parse().expect("the coordinator grants stages");
        let digest = Digest::try_from(grant.digest).expect("the coordinator grants artifacts");
        Work {
            lease: grant.lease,
            artifact: ArtifactId { stage, digest },
            of: grant.of,
            shards: grant.shards,
            committed: Vec::new(),
            end: None,
            due: Instant::now() + self.pace(),
        }
    }

    /// Commits the shard at work, as one without rows.
    async fn commit(&mut self, line: &Line, heard: &Heard) -> bool {
        let (took, pace) = (self.shard, self.pace());
        let Some(work) = self.work.as_mut() else { return true };
        let Some(shard) = work.shards.first().copied() else {
            let ended = FromWorker::Ended { lease: work.lease };
            return self.end(ended, line).await;
        };
        let plan = Plan { shards: work.of, input_parts: Vec::new(), outputs: Vec::new() };
        let stats = Stats { rows: 1, seconds: took.as_secs_f64(), ..Stats::default() };
        let attempt = Attempt { shard, id: format!("{}-{}", self.name, work.lease), stats, ..Attempt::default() };
        let commit = artifact::commit_shard(&self.store, &work.artifact, &plan, attempt).await;
        let won = matches!(commit.expect("the root can be written"), Commit::Won(_));
        heard.note(|report| {
            report.committed += u64::from(won);
            report.redone += u64::from(!won);
        });
        work.shards.remove(0);
        work.due = Instant::now() + pace;
        let (lease, last) = (work.lease, work.shards.is_empty());
        let committed = Committed { shard, rows: 1, took, ..Committed::default() };
        work.committed.push(committed.clone());
        if line.send(FromWorker::Committed { lease, committed }).await.is_err() {
            return false;
        }
        !last || self.end(FromWorker::Ended { lease }, line).await
    }

    /// Says the last word of a lease.
    async fn end(&mut self, word: FromWorker, line: &Line) -> bool {
        if let Some(work) = self.work.as_mut() {
            work.end = Some(word.clone());
        }
        self.idle = Some(Instant::now());
        line.send(word).await.is_ok()
    }

    /// How long the next shard takes: half as long as the average up to half as long again.
    fn pace(&mut self) -> Duration {
        let factor = 0.5 + self.draw();
        self.shard.mul_f64(factor)
    }

    /// The next number of a sequence, 0 to 1.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f64 / (1_u64 << 24) as f64
    }
}
