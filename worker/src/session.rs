//! A worker's conversation with its coordinator.

use std::path::PathBuf;
use std::time::Duration;

use data::store::Store;
use futures::StreamExt;
use kernels::Device;
use proto::pb::workers_client::WorkersClient;
use proto::{
    Endpoint, FailureClass, FromWorker, LeaseId, PROTOCOL, Progress, REGISTRATION, Register, ToWorker, Welcome, pb,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{info, warn};

use crate::context::Means;
use crate::decoders::DecoderCommand;
use crate::desk::Desk;
use crate::device::DeviceThread;
use crate::gang::Reach;
use crate::kept::KnownPlan;
use crate::{Error, Observer, Result};

#[cfg(test)]
mod tests;

/// How long the coordinator may take to hear a worker's last words.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to reach a coordinator.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a worker is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator, and who this worker is to it.
    pub coordinator: Endpoint,
    /// A name for people.
    pub name: String,
    /// What it computes on, for people.
    pub device: String,
    /// Compute threads of the CPU.
    pub threads: usize,
    /// A local folder for what does not fit into memory.
    pub spool: PathBuf,
    /// How long to look for a coordinator that does not answer.
    pub patience: Duration,
    /// How to start a process that decodes pictures.
    pub decoder: DecoderCommand,
    /// The host that other workers of a gang find this one at, with or without a port to listen on; the address that leads to
    /// the coordinator if nothing is said.
    pub peers: Option<String>,
    /// What tells of it those who watch it.
    pub observer: Observer,
    /// The job that it is for and ends with: its id or its name. Any job, and no end, if nothing is said.
    pub job: Option<String>,
}

/// Works until the coordinator ends, refuses, stays away for too long, or `stop` is cancelled, on a device that `open`
/// opens: at the beginning, and anew whenever it is lost. What is at work when a session breaks goes on, and is claimed at
/// the coordinator that answers next.
///
/// # Errors
/// If the device cannot be opened or is lost for good, or if the coordinator refuses this worker or cannot be reached.
pub async fn run(
    open: impl FnMut() -> kernels::Result<Device> + Send + 'static,
    options: Options,
    stop: CancellationToken,
) -> Result<()> {
    let device = DeviceThread::start(open)?;
    let (desk, job) = (Desk::new(device.clone()), options.job.clone());
    let mut worker = Worker { desk, device, job, options, term: 0, store: None, plan: KnownPlan::default() };
    let mut pause = Duration::from_millis(50);
    // Attempts count as well as the pauses between them: one may take long.
    let mut away_since = Instant::now();
    let mut told = String::new();
    loop {
        let ended = worker.session(&stop).await;
        worker.options.observer.set_registered(false);
        match ended {
            Ok(End::Over) => return Ok(()),
            Ok(End::JobEnded(None)) => return Ok(()),
            Ok(End::JobEnded(Some(failed))) => return Err(failed),
            Ok(End::Untold) => {
                worker.desk.clear(None).await;
                return Ok(());
            }
            Ok(End::DeviceLost(cause)) => return Err(Error::DeviceLost(cause)),
            Ok(End::Hangs(reason)) => return Err(Error::Hangs(reason)),
            Ok(End::Broken(reason)) => {
                worker.desk.cut_off();
                (pause, away_since) = (Duration::from_millis(50), Instant::now());
                told.clear();
                warn!(reason, "session broke, will register again");
            }
            Err(e) if worker.may_pass(&e) && away_since.elapsed() < worker.options.patience => {
                // It may be away for days: that is said once, and again when the reason changes.
                let reason = e.to_string();
                if told != reason {
                    warn!(reason, "coordinator away, looking for it; is --coordinator right?");
                    told = reason;
                }
            }
            Err(e) => {
                worker.desk.clear(None).await;
                return Err(e);
            }
        }
        tokio::select! {
            () = worker.desk.keep(pause) => {}
            () = stop.cancelled() => {
                worker.desk.clear(None).await;
                return Ok(());
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// There is nothing more to do, and the coordinator knows.
    Over,
    /// The worker is to leave, and no coordinator has answered that could be told.
    Untold,
    /// The job that the worker is for has ended; an error if it did not succeed.
    JobEnded(Option<Error>),
    /// There is nothing to do it with any more; another process may open the device.
    DeviceLost(String),
    /// The device's thread hangs: it cannot be waited for.
    Hangs(String),
    /// The stream broke; the coordinator may come back, or another one.
    Broken(String),
}

/// Says a word. Where nobody takes it, a stop is seen all the same: then the word may wait a little, and is lost.
pub(crate) async fn say(
    to_coordinator: &mpsc::Sender<FromWorker>,
    word: FromWorker,
    stop: &CancellationToken,
) -> Option<End> {
    let place = tokio::select! {
        biased;
        place = to_coordinator.reserve() => place,
        () = stop.cancelled() => {
            let _ = tokio::time::timeout(FAREWELL, to_coordinator.send(word)).await;
            return Some(leave(to_coordinator));
        }
    };
    match place {
        Ok(place) => {
            place.send(word);
            None
        }
        Err(_) => Some(End::Broken("the stream is closed".to_owned())),
    }
}

/// Says that the worker is told to leave.
fn leave(to_coordinator: &mpsc::Sender<FromWorker>) -> End {
    // A coordinator that does not take it hears of the end all the same, as a loss.
    let _ = to_coordinator.try_send(FromWorker::Leaving);
    End::Over
}

/// Says that a lease hangs in this worker, which ends.
fn hang(to_coordinator: &mpsc::Sender<FromWorker>, lease: LeaseId, reason: String) -> End {
    let (class, words) = (FailureClass::Retry, format!("hangs: {reason}"));
    let _ = to_coordinator.try_send(FromWorker::Failed { lease, class, reason: words });
    let _ = to_coordinator.try_send(FromWorker::Leaving);
    End::Hangs(reason)
}

/// What outlives a session.
struct Worker {
    options: Options,
    /// The job that it is for; the whole id once it has worked for one.
    job: Option<String>,
    device: DeviceThread,
    desk: Desk,
    /// The highest term that was heard of.
    term: u64,
    /// The store of the root, as its first coordinator named it.
    store: Option<Store>,
    plan: KnownPlan,
}

impl Worker {
    async fn session(&mut self, stop: &CancellationToken) -> Result<End> {
        let (to_coordinator, outbox) = mpsc::channel(256);
        let late = || self.unreachable("it does not answer".to_owned());
        let registered = tokio::time::timeout(REGISTRATION, self.register(&to_coordinator, outbox));
        let registered = tokio::select! {
            registered = registered => registered.map_err(|_| late())?,
            () = stop.cancelled() => return Ok(End::Untold),
        };
        let (welcome, mut stream) = registered?;
        if welcome.term < self.term {
            return Ok(End::Broken(format!("it leads term {}, and term {} has begun", welcome.term, self.term)));
        }
        self.term = welcome.term;
        info!(worker = %welcome.worker, root = welcome.root, term = welcome.term, "registered");
        let means = match self.means(&welcome) {
            Ok(means) => means,
            Err(e) => {
                // What was granted meanwhile has cost no worker.
                let _ = to_coordinator.send(FromWorker::Leaving).await;
                drop(to_coordinator);
                let closed = async { while let Ok(Some(_)) = stream.message().await {} };
                let _ = tokio::time::timeout(FAREWELL, closed).await;
                return Err(e);
            }
        };
        self.options.observer.set_registered(true);
        let end = match self.desk.repeat(&to_coordinator, stop).await {
            Some(end) => end,
            None => self.listen(means, welcome.heartbeat, &to_coordinator, &mut stream, stop).await,
        };
        if !matches!(end, End::Broken(_) | End::Hangs(_)) {
            self.desk.clear(Some((&to_coordinator, welcome.heartbeat))).await;
        }
        // What was said last is on its way: the stream stays until the coordinator, too, has closed it.
        drop(to_coordinator);
        let closed = async { while let Ok(Some(_)) = stream.message().await {} };
        if !matches!(end, End::Broken(_)) {
            let _ = tokio::time::timeout(FAREWELL, closed).await;
        }
        Ok(end)
    }

    /// Whether a coordinator may be there later. One that has taken this worker before may refuse it while certificates are
    /// being renewed.
    fn may_pass(&self, error: &Error) -> bool {
        matches!(error, Error::Unreachable { .. }) || (self.term > 0 && matches!(error, Error::Endpoint(_)))
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { address: self.options.coordinator.url.clone(), reason }
    }

    async fn register(
        &self,
        to_coordinator: &mpsc::Sender<FromWorker>,
        outbox: mpsc::Receiver<FromWorker>,
    ) -> Result<(Welcome, Streaming<pb::CoordinatorMessage>)> {
        let register = Register {
            protocol: PROTOCOL,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.options.name.clone(),
            threads: u32::try_from(self.options.threads).unwrap_or(u32::MAX),
            device: self.options.device.clone(),
            term: self.term,
            claims: self.desk.claim().into_iter().collect(),
            job: self.job.clone(),
        };
        let _ = to_coordinator.send(FromWorker::Register(register)).await;
        let coordinator = &self.options.coordinator;
        let mut client = WorkersClient::new(coordinator.connect().await?);
        let said = ReceiverStream::new(outbox).map(pb::WorkerMessage::from);
        let mut stream = match client.session(said).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                return Err(Error::Refused(status.message().to_owned()));
            }
            Err(status) => return Err(coordinator.explain(&status).into()),
        };
        let first = stream.message().await.map_err(|s| coordinator.explain(&s))?;
        match first.map(ToWorker::try_from) {
            Some(Ok(ToWorker::Welcome(welcome))) => Ok((welcome, stream)),
            Some(Ok(ToWorker::Refused(reason))) => Err(Error::Refused(reason)),
            _ => Err(self.unreachable("it did not answer the registration".to_owned())),
        }
    }

    /// The store is opened once: what is at work goes on with it whoever leads.
    fn means(&mut self, welcome: &Welcome) -> Result<Means> {
        let store = match self.store.take().filter(|s| s.url() == welcome.root.trim_end_matches('/')) {
            Some(store) => store,
            None => Store::open(&welcome.root)?.patient(welcome.store_patience),
        };
        self.store = Some(store.clone());
        let (spool, decoder, threads) =
            (self.options.spool.clone(), self.options.decoder.clone(), self.options.threads);
        let reach = Reach { coordinator: self.options.coordinator.authority()?, told: self.options.peers.clone() };
        let (plan, step_patience) = (self.plan.clone(), welcome.step_patience);
        Ok(Means { store, spool, decoder, threads, plan, reach, step_patience })
    }

    async fn listen(
        &mut self,
        means: Means,
        heartbeat: Duration,
        to_coordinator: &mpsc::Sender<FromWorker>,
        stream: &mut Streaming<pb::CoordinatorMessage>,
        stop: &CancellationToken,
    ) -> End {
        let mut beat = tokio::time::interval(heartbeat);
        loop {
            tokio::select! {
                message = stream.message() => match message.map(|m| m.map(ToWorker::try_from)) {
                    Ok(Some(Ok(message))) => {
                        if let Some(end) = self.obey(message, &means, heartbeat, to_coordinator, stop).await {
                            return end;
                        }
                    }
                    Ok(Some(Err(e))) => return End::Broken(e.to_string()),
                    Ok(None) => return End::Broken("the coordinator closed the stream".to_owned()),
                    Err(status) => return End::Broken(status.message().to_owned()),
                },
                word = self.desk.word() => {
                    if let Some(end) = say(to_coordinator, word, stop).await {
                        return end;
                    }
                }
                _ = beat.tick() => {
                    if let Some((lease, reason)) = self.desk.hangs() {
                        return hang(to_coordinator, lease, reason);
                    }
                    let sign = self.desk.sign_of_life(&means.store);
                    // A full channel says as much as a heartbeat would: it must not keep a stop from being seen.
                    if matches!(to_coordinator.try_send(sign), Err(TrySendError::Closed(_))) {
                        return End::Broken("the stream is closed".to_owned());
                    }
                }
                cause = self.device.ended() => {
                    // The lease that it cost is handed back behind this, and no other comes.
                    let _ = to_coordinator.try_send(FromWorker::Leaving);
                    return End::DeviceLost(cause);
                }
                () = stop.cancelled() => return leave(to_coordinator),
            }
        }
    }

    async fn obey(
        &mut self,
        message: ToWorker,
        means: &Means,
        heartbeat: Duration,
        to_coordinator: &mpsc::Sender<FromWorker>,
        stop: &CancellationToken,
    ) -> Option<End> {
        match message {
            ToWorker::Welcome(_) => None,
            ToWorker::Refused(reason) => Some(End::Broken(reason)),
            ToWorker::Shutdown(reason) => {
                info!(reason, "coordinator ends");
                Some(End::Over)
            }
            ToWorker::JobEnded { job, succeeded, reason, may_pass } => {
                info!(%job, succeeded, reason, "the job that this worker is for has ended");
                let _ = to_coordinator.try_send(FromWorker::Leaving);
                Some(End::JobEnded((!succeeded).then_some(Error::JobEnded { job: job.0, reason, may_pass })))
            }
            ToWorker::Revoke { lease, reason } => {
                self.desk.revoke(lease, &reason);
                None
            }
            ToWorker::Generation(generation) => {
                self.desk.call(generation);
                None
            }
            ToWorker::Regroup { lease, generation } => {
                self.desk.regroup(lease, generation);
                None
            }
            ToWorker::Abort { lease, generation, reason } => {
                self.desk.abort(lease, generation, reason);
                None
            }
            ToWorker::Grant(grant) => {
                if let Some(job) = self.job.as_mut() {
                    // Of several of one name it ends with this one, also if it hears of that from another coordinator.
                    job.clone_from(&grant.job.0);
                }
                self.desk.clear(Some((to_coordinator, heartbeat))).await;
                // Said before the work begins: if that kills this worker, the coordinator shall know what it died of.
                let taken_up = FromWorker::Progress { lease: grant.lease, progress: Progress::default() };
                let end = say(to_coordinator, taken_up, stop).await;
                if end.is_none() {
                    self.desk.start(grant, means.clone());
                }
                end
            }
        }
    }
}
