//! What a task sees of the world: its job, its inputs, the store, and whom to tell.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data::artifact::{
    self, ArtifactId, Aside, Attempt, Commit, Digest, Done, FilePayload, PartPayload, Plan, Spec, Stats,
};
use data::job::{Job, Split, Stage};
use data::store::Store;
use data::tables::{Footer, RejectedRow, Row, encode_part, part_name};
use observe::figures;
use proto::{Broken, Committed, FromWorker, Grant, LeaseId, Progress};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::decoders::DecoderCommand;
use crate::doubt::{Doubt, Looks};
use crate::gang::{Meeting, Reach, Seat};
use crate::kept::{Fits, KnownPlan};
use crate::{Error, Result, settings};

/// Why users have no row whom the stage before has put aside.
const WITHOUT_INPUT: &str = "put aside by the stage before";
/// Progress is told at most so often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What a worker works with, the same for every lease.
#[derive(Clone)]
pub(crate) struct Means {
    /// The store.
    pub(crate) store: Store,
    /// A local folder for what does not fit into memory.
    pub(crate) spool: PathBuf,
    /// How to start a process that decodes pictures.
    pub(crate) decoder: DecoderCommand,
    /// Threads of the device.
    pub(crate) threads: usize,
    /// How the last artifact was planned.
    pub(crate) plan: KnownPlan,
    /// How other workers reach this one.
    pub(crate) reach: Reach,
    /// How long a step of a training may say nothing, at least.
    pub(crate) step_patience: Duration,
}

/// What reaches a lease at work from outside.
#[derive(Clone)]
pub(crate) struct Signs {
    /// It was revoked, or the worker is to leave.
    pub(crate) stop: CancellationToken,
    /// Others may have been given it, too.
    pub(crate) doubt: Doubt,
    /// What becomes of its gang.
    pub(crate) seat: Arc<Seat>,
}

/// A granted lease with all that its task needs. Tasks are plain functions on the device's thread; storage is awaited
/// with [`Context::wait`].
pub(crate) struct Context {
    /// The job.
    pub(crate) job: Job,
    /// What is made.
    pub(crate) artifact: ArtifactId,
    /// The split, where the stage has one.
    pub(crate) split: Option<Split>,
    /// The artifact's spec: inputs by role.
    pub(crate) spec: Arc<Spec>,
    /// The artifact's plan.
    pub(crate) plan: Arc<Plan>,
    /// The store.
    pub(crate) store: Store,
    /// A local folder for what does not fit into memory.
    pub(crate) spool: PathBuf,
    /// How to start a process that decodes pictures.
    pub(crate) decoder: DecoderCommand,
    /// Threads of the device.
    pub(crate) threads: usize,
    /// Where a training hears of its gang.
    pub(crate) seat: Arc<Seat>,
    /// How other workers reach this one.
    pub(crate) reach: Reach,
    lease: LeaseId,
    looks: Looks,
    job_id: String,
    job_toml: String,
    attempt: String,
    stop: CancellationToken,
    to_coordinator: mpsc::Sender<FromWorker>,
    runtime: Handle,
    told: Option<Instant>,
    began: Instant,
}

/// The parts of one table that a shard makes, to be committed together.
#[derive(Default)]
pub(crate) struct Output {
    parts: Vec<PartPayload>,
    files: Vec<FilePayload>,
    written: Vec<artifact::PartRecord>,
    /// Figures of the attempt; memory is filled in at the commit, and time unless more went in, in earlier attempts.
    pub(crate) stats: Stats,
}

impl Output {
    /// Adds a model file.
    pub(crate) fn file(&mut self, name: &str, bytes: impl Into<Bytes>) {
        self.files.push(FilePayload { name: name.to_owned(), bytes: bytes.into() });
    }
}

impl Context {
    /// Reads what a grant points at.
    pub(crate) async fn open(
        grant: &Grant,
        means: Means,
        Signs { stop, doubt, seat }: Signs,
        to_coordinator: mpsc::Sender<FromWorker>,
    ) -> Result<Self> {
        let unknown = |what: &str| Error::Unknown { what: what.to_owned() };
        let stage: Stage = grant.stage.parse().map_err(|_| unknown(&grant.stage))?;
        let split = grant.split.as_deref().map(|s| s.parse::<Split>().map_err(|_| unknown(s))).transpose()?;
        let digest = Digest::try_from(grant.digest.clone()).map_err(|_| unknown(&grant.digest))?;
        let artifact = ArtifactId { stage, digest };
        let Means { store, spool, decoder, threads, plan, reach, .. } = means;
        // Whoever is to stop does not wait for a store that is away.
        let store = store.until(stop.clone());
        let (spec, plan) = plan.or_read(&store, &artifact).await?;
        let job = settings::job_of(&store, Job::parse("job", &grant.job_toml, &[])?, &spec).await?;
        let attempt = attempt_id(grant);
        tracing::Span::current().record("attempt", &attempt);
        Ok(Self {
            job,
            artifact,
            split,
            spec,
            plan,
            store,
            spool,
            decoder,
            threads,
            seat,
            reach,
            lease: grant.lease,
            looks: Looks::new(doubt),
            job_id: grant.job.0.clone(),
            job_toml: grant.job_toml.clone(),
            attempt,
            stop,
            to_coordinator,
            runtime: Handle::current(),
            told: None,
            began: Instant::now(),
        })
    }

    /// Waits for storage from the device's thread.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Waits for something long that may be dropped in the middle.
    pub(crate) fn wait_unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(stopped()),
                outcome = future => Ok(outcome),
            }
        })
    }

    /// As [`Context::wait_unless_stopped`], telling now and then what `show` says.
    pub(crate) fn wait_showing<T>(
        &mut self,
        future: impl Future<Output = T>,
        show: impl Fn() -> Progress,
    ) -> Result<T> {
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        runtime.block_on(async {
            let mut future = std::pin::pin!(future);
            let mut tick = tokio::time::interval(TELL_EVERY);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(stopped()),
                    outcome = &mut future => return Ok(outcome),
                    _ = tick.tick() => self.tell(&show),
                }
            }
        })
    }

    /// The digest of an input.
    pub(crate) fn input(&self, stage: Stage, split: Option<Split>) -> Result<Digest> {
        let role = artifact::role(stage, split);
        let found = self.spec.inputs.get(&role).cloned();
        found.ok_or(Error::Input { stage: self.artifact.stage, role })
    }

    /// What is cancelled once the lease is revoked or the worker is to leave.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// For threads that wait for storage beside the device's.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Says that this worker waits for a generation of its gang, from `step` on.
    pub(crate) fn tell_ready(&self, meeting: &Meeting, step: u64, about: String, broken: Option<Broken>) {
        let ready = meeting.ready(self.lease, step, about, broken);
        let _ = self.wait(self.to_coordinator.send(FromWorker::Ready(ready)));
    }

    /// Fails once the lease is revoked or the worker is to leave. A training that asks says by that that it lives.
    pub(crate) fn check(&self) -> Result<()> {
        self.seat.beat();
        if self.stop.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Tells how far the lease is; most calls are swallowed, the last one of a lease is not.
    pub(crate) fn progress(&mut self, done: u64, total: u64, unit: &str, note: impl FnOnce() -> String) {
        let due = self.told.is_none_or(|t| t.elapsed() >= TELL_EVERY) || (total > 0 && done == total);
        if due {
            self.tell(|| Progress { done, total, unit: unit.to_owned(), note: note() });
        }
    }

    fn tell(&mut self, progress: impl FnOnce() -> Progress) {
        self.told = Some(Instant::now());
        // A full channel loses a progress report, never work.
        let _ = self.to_coordinator.try_send(FromWorker::Progress { lease: self.lease, progress: progress() });
    }

    /// Encodes the part of a shard; it is written at the commit.
    pub(crate) fn part<R: Row>(&self, output: &mut Output, rows: &[R], index: u32, of: u32) -> Result<()> {
        output.parts.push(self.payload(rows, index, of)?);
        Ok(())
    }

    /// Writes a part at once, for shards that make many.
    pub(crate) fn write_part<R: Row>(&self, output: &mut Output, rows: &[R], index: u32, of: u32) -> Result<()> {
        let payload = self.payload(rows, index, of)?;
        let record = self.wait(artifact::write_part(&self.store, &self.artifact, payload))?;
        output.written.push(record);
        Ok(())
    }

    /// Whether a shard need not be done any more, because another worker was faster; the coordinator hears of it. It is looked
    /// up where that may be so.
    pub(crate) fn is_done(&mut self, shard: u32) -> Result<bool> {
        if !self.looks.due() {
            return Ok(false);
        }
        let Some(done) = self.wait(artifact::done_record(&self.store, &self.artifact, shard))? else {
            return Ok(false);
        };
        tracing::info!(artifact = %self.artifact, shard, attempt = done.attempt, "done by another attempt");
        self.looks.met_another();
        self.tell_committed(Duration::ZERO, &done);
        Ok(true)
    }

    /// Commits a shard of users who have no row, because the stage before has none of them: they are named.
    pub(crate) fn put_aside<R: Row>(&mut self, shard: u32, users: impl Iterator<Item = String>) -> Result<()> {
        let rejected: Vec<RejectedRow> = users.map(|user| RejectedRow::of_user(user, WITHOUT_INPUT)).collect();
        let mut output = Output::default();
        output.stats.rejected.insert(WITHOUT_INPUT.to_owned(), rejected.len() as u64);
        self.part::<R>(&mut output, &[], shard, self.plan.shards)?;
        self.part(&mut output, &rejected, shard, self.plan.shards)?;
        self.commit(shard, output)
    }

    /// Makes the output of a shard count.
    pub(crate) fn commit(&mut self, shard: u32, output: Output) -> Result<()> {
        let mut stats = output.stats;
        let took = self.began.elapsed();
        stats.seconds = stats.seconds.max(took.as_secs_f64());
        stats.peak_rss_bytes = peak_rss_bytes();
        let attempt = Attempt {
            shard,
            id: self.attempt.clone(),
            parts: output.parts,
            files: output.files,
            written_parts: output.written,
            written_files: Vec::new(),
            stats,
        };
        let writing = Instant::now();
        let committed = self.wait(artifact::commit_shard(&self.store, &self.artifact, &self.plan, attempt));
        figures().commit_seconds.observe(writing.elapsed().as_secs_f64());
        let done = match committed {
            Ok(Commit::Won(done)) => {
                done.rejected.iter().for_each(|(reason, rows)| figures().rows_put_aside(reason, *rows));
                done
            }
            Ok(Commit::AlreadyDone(done)) => {
                tracing::info!(artifact = %self.artifact, shard, attempt = done.attempt, "another attempt was first");
                self.looks.met_another();
                done
            }
            Err(data::Error::PutAside { .. }) => self.complete_quarantine(shard)?,
            Err(e) => return Err(e.into()),
        };
        tracing::info!(
            shard,
            attempt = done.attempt,
            rows = done.rows,
            seconds = took.as_secs_f64(),
            "shard committed"
        );
        self.began = Instant::now();
        self.looks.committed_after(took);
        self.tell_committed(took, &done);
        Ok(())
    }

    fn tell_committed(&self, took: Duration, done: &Done) {
        let committed = Committed { shard: done.shard, rows: done.rows, took, rejected: done.rejected.clone() };
        let _ = self.wait(self.to_coordinator.send(FromWorker::Committed { lease: self.lease, committed }));
    }

    /// Completes what a coordinator has begun: the shard has been put aside, and this attempt comes too late.
    fn complete_quarantine(&self, shard: u32) -> Result<Done> {
        let (footer, id) = (self.footer(), &self.artifact);
        match self.wait(artifact::quarantine(&self.store, id, self.split, &self.plan, shard, &footer))? {
            Aside::Done(done) => Ok(done),
            Aside::Computed => {
                Err(Error::Misfit { what: format!("shard {shard} of {} has parts of two minds", self.artifact) })
            }
        }
    }

    fn payload<R: Row>(&self, rows: &[R], index: u32, of: u32) -> Result<PartPayload> {
        let bytes = encode_part(rows, &self.footer())?;
        Ok(PartPayload { table: R::TABLE, name: part_name(index, of), rows: rows.len() as u64, bytes })
    }

    fn footer(&self) -> Footer {
        Footer {
            job: self.job_id.clone(),
            spec_digest: self.artifact.digest.to_string(),
            model_digest: self.model_digest(),
            attempt: self.attempt.clone(),
        }
    }

    fn model_digest(&self) -> Option<String> {
        self.model().map(|model| model.digest.to_string())
    }

    /// The trained model that goes in, if one does.
    fn model(&self) -> Option<ArtifactId> {
        let trained = |stage: Stage| {
            let digest = self.spec.inputs.get(&artifact::role(stage, None))?.clone();
            Some(ArtifactId { stage, digest })
        };
        [Stage::TrainRanker, Stage::TrainRetriever].into_iter().find_map(trained)
    }

    /// What must be the same for the things of an earlier lease to fit this one.
    pub(crate) fn fits(&self) -> Result<Fits> {
        let record = |id: ArtifactId| self.wait(artifact::done_record(&self.store, &id, 0));
        let trained_by = self.model().map(record).transpose()?.flatten().map(|done| done.attempt);
        let (root, artifact) = (self.store.url().to_owned(), self.artifact.clone());
        Ok(Fits { root, artifact, job_toml: self.job_toml.clone(), trained_by })
    }
}

pub(crate) fn stopped() -> Error {
    Error::Stopped("the lease was taken back".to_owned())
}

/// Different for every attempt of any worker, ever.
fn attempt_id(grant: &Grant) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let unique = format!("{}-{}-{}-{}", grant.digest, grant.lease, std::process::id(), since.as_nanos());
    Digest::of_bytes(unique.as_bytes()).short().to_owned()
}

/// The largest resident memory of this process so far; 0 where the system does not tell.
fn peak_rss_bytes() -> u64 {
    // SAFETY: rusage is a plain struct of integers, for which zeros are valid, and getrusage fills it in.
    let (code, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), usage)
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    if code == 0 { u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit } else { 0 }
}
