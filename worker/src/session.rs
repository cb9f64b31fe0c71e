//! A worker's conversation with its coordinator.

use std::path::PathBuf;
use std::time::Duration;

use data::store::Store;
use futures::StreamExt;
use proto::pb::workers_client::WorkersClient;
use proto::{Endpoint, FromWorker, Grant, LeaseId, PROTOCOL, Register, ToWorker, Welcome, pb};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{info, warn};

use crate::context::{Context, Means};
use crate::decoders::DecoderCommand;
use crate::device::DeviceThread;
use crate::devices::Place;
use crate::{Class, Error, Result, tasks};

/// How long the coordinator may take to hear a worker's last words.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a worker is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator, and who this worker is to it.
    pub coordinator: Endpoint,
    /// A name for people.
    pub name: String,
    /// Where to compute.
    pub place: Place,
    /// Compute threads.
    pub threads: usize,
    /// A local folder for what does not fit into memory.
    pub spool: PathBuf,
    /// How long to look for a coordinator that does not answer.
    pub patience: Duration,
    /// How to start a process that decodes pictures.
    pub decoder: DecoderCommand,
}

/// Works until the coordinator ends, refuses, stays away for too long, or `stop` is cancelled.
///
/// # Errors
/// If the device cannot be opened or is lost for good, or if the coordinator refuses this worker or cannot be reached.
pub async fn run(options: Options, stop: CancellationToken) -> Result<()> {
    let device = DeviceThread::start(options.place, options.threads)?;
    let mut pause = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        match session(&options, &device, &stop).await {
            Ok(End::Over) => return Ok(()),
            Ok(End::DeviceLost(cause)) => return Err(Error::DeviceLost(cause)),
            Ok(End::Broken(reason)) => {
                (pause, waited) = (Duration::from_millis(50), Duration::ZERO);
                warn!(reason, "session broke, will register again");
            }
            Err(e @ Error::Unreachable { .. }) if waited < options.patience => {
                info!(error = %e, "coordinator away, will try again");
            }
            Err(e) => return Err(e),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => waited += pause,
            () = stop.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

enum End {
    /// There is nothing more to do.
    Over,
    /// There is nothing to do it with any more; another process may open the device.
    DeviceLost(String),
    /// The stream broke; the coordinator may come back.
    Broken(String),
}

async fn session(options: &Options, device: &DeviceThread, stop: &CancellationToken) -> Result<End> {
    let (to_coordinator, outbox) = mpsc::channel(256);
    let (welcome, mut stream) = register(options, &to_coordinator, outbox).await?;
    info!(worker = %welcome.worker, root = welcome.root, "registered");
    let store = Store::open(&welcome.root)?;
    let (spool, decoder, threads) = (options.spool.clone(), options.decoder.clone(), options.threads);
    let means = Means { store, spool, decoder, threads };
    let heartbeat = welcome.heartbeat;
    let mut session = Session { means, device: device.clone(), heartbeat, to_coordinator, running: None };
    let end = session.listen(&mut stream, stop).await;
    session.drain().await;
    // What was said last is on its way: the stream stays until the coordinator, too, has closed it.
    drop(session);
    let closed = async { while let Ok(Some(_)) = stream.message().await {} };
    let _ = tokio::time::timeout(FAREWELL, closed).await;
    Ok(end)
}

async fn register(
    options: &Options,
    to_coordinator: &mpsc::Sender<FromWorker>,
    outbox: mpsc::Receiver<FromWorker>,
) -> Result<(Welcome, Streaming<pb::CoordinatorMessage>)> {
    let unreachable = |reason: String| Error::Unreachable { address: options.coordinator.url.clone(), reason };
    let register = Register {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        name: options.name.clone(),
        threads: u32::try_from(options.threads).unwrap_or(u32::MAX),
    };
    let _ = to_coordinator.send(FromWorker::Register(register)).await;
    let mut client = WorkersClient::new(options.coordinator.connect().await?);
    let said = ReceiverStream::new(outbox).map(pb::WorkerMessage::from);
    let mut stream = match client.session(said).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            return Err(Error::Refused(status.message().to_owned()));
        }
        Err(status) => return Err(options.coordinator.explain(&status).into()),
    };
    let first = stream.message().await.map_err(|s| options.coordinator.explain(&s))?;
    match first.map(ToWorker::try_from) {
        Some(Ok(ToWorker::Welcome(welcome))) => Ok((welcome, stream)),
        Some(Ok(ToWorker::Refused(reason))) => Err(Error::Refused(reason)),
        _ => Err(unreachable("it did not answer the registration".to_owned())),
    }
}

/// A lease at work.
struct Running {
    lease: LeaseId,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

struct Session {
    means: Means,
    device: DeviceThread,
    /// Time between two signs of life.
    heartbeat: Duration,
    to_coordinator: mpsc::Sender<FromWorker>,
    running: Option<Running>,
}

impl Session {
    async fn listen(&mut self, stream: &mut Streaming<pb::CoordinatorMessage>, stop: &CancellationToken) -> End {
        let mut beat = tokio::time::interval(self.heartbeat);
        loop {
            tokio::select! {
                message = stream.message() => match message.map(|m| m.map(ToWorker::try_from)) {
                    Ok(Some(Ok(message))) => if let Some(end) = self.obey(message).await { return end },
                    Ok(Some(Err(e))) => return End::Broken(e.to_string()),
                    Ok(None) => return End::Broken("the coordinator closed the stream".to_owned()),
                    Err(status) => return End::Broken(status.message().to_owned()),
                },
                _ = beat.tick() => {
                    // A full channel says as much as a heartbeat would: it must not keep a stop from being seen.
                    if matches!(self.to_coordinator.try_send(FromWorker::Heartbeat), Err(TrySendError::Closed(_))) {
                        return End::Broken("the stream is closed".to_owned());
                    }
                }
                cause = self.device.ended() => {
                    // The lease that it cost is handed back behind this, and no other comes.
                    let _ = self.to_coordinator.try_send(FromWorker::Leaving);
                    return End::DeviceLost(cause);
                }
                () = stop.cancelled() => {
                    // A coordinator that does not take it hears of the end all the same, as a loss.
                    let _ = self.to_coordinator.try_send(FromWorker::Leaving);
                    return End::Over;
                }
            }
        }
    }

    async fn obey(&mut self, message: ToWorker) -> Option<End> {
        match message {
            ToWorker::Welcome(_) => None,
            ToWorker::Refused(reason) => Some(End::Broken(reason)),
            ToWorker::Shutdown(reason) => {
                info!(reason, "coordinator ends");
                Some(End::Over)
            }
            ToWorker::Revoke { lease, reason } => {
                if let Some(running) = self.running.as_ref().filter(|r| r.lease == lease) {
                    info!(%lease, reason, "lease revoked");
                    running.stop.cancel();
                }
                None
            }
            ToWorker::Grant(grant) => {
                self.drain().await;
                self.running = Some(self.start(grant));
                None
            }
        }
    }

    fn start(&self, grant: Grant) -> Running {
        let stop = CancellationToken::new();
        let lease = grant.lease;
        let (means, device) = (self.means.clone(), self.device.clone());
        let (to, token) = (self.to_coordinator.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let outcome = match Context::open(&grant, means, token, to.clone()).await {
                Ok(context) => {
                    let shards = grant.shards.clone();
                    device.run(move |device| tasks::run(context, &shards, device)).await
                }
                Err(e) => Err(e),
            };
            let word = match outcome {
                Ok(()) => FromWorker::Ended { lease },
                Err(e) => {
                    match e.class() {
                        Class::Stopped => info!(%lease, stage = grant.stage, "lease handed back"),
                        // The coordinator tells the user.
                        Class::Fatal => info!(%lease, stage = grant.stage, error = %e, "lease failed for good"),
                        _ => warn!(%lease, stage = grant.stage, error = %e, "lease failed"),
                    }
                    FromWorker::Failed { lease, class: e.class().into(), reason: e.to_string() }
                }
            };
            let _ = to.send(word).await;
        });
        Running { lease, stop, task }
    }

    /// Stops what is running and waits for it, with signs of life: a checkpoint may still be written.
    async fn drain(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.stop.cancel();
        let mut beat = tokio::time::interval(self.heartbeat);
        loop {
            tokio::select! {
                _ = &mut running.task => return,
                // A full or closed channel must not keep the task from being waited for.
                _ = beat.tick() => drop(self.to_coordinator.try_send(FromWorker::Heartbeat)),
            }
        }
    }
}
