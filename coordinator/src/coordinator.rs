//! The coordinator as a process: one loop that feeds the shell until it is told to stop, or somebody else leads.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data::store::Store;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::access::Access;
use crate::core::{Event, Policy};
use crate::inbox::Input;
use crate::leadership::Leadership;
use crate::shell::Shell;
use crate::{Error, Observer, Result, allow_many_connections, rpc};

/// How long open streams may delay the end.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// Time between two looks at who leads.
const LEAD: Duration = Duration::from_secs(5);
/// Time between two writings of the journals.
const WRITE: Duration = Duration::from_secs(10);

/// How a coordinator is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may call; open to this machine by default.
    pub access: Access,
    /// Limits that turn silence into decisions.
    pub policy: Policy,
    /// Time between two heartbeats of a worker.
    pub heartbeat: Duration,
    /// A file that remembers the digests of input files between runs.
    pub digest_cache: Option<PathBuf>,
    /// Whether it is one of a sequence that serves a root for ever: it takes up what its predecessor left, and workers
    /// wait for its successor. Otherwise jobs and workers end with it.
    pub lasting: bool,
    /// How long tasks wait for a store that is away before they fail.
    pub store_patience: Duration,
    /// A step of a training that says nothing for so long, and for ten times as long as any lately, hangs.
    pub step_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            access: Access::default(),
            policy: Policy::default(),
            heartbeat: Duration::from_secs(1),
            digest_cache: None,
            lasting: false,
            store_patience: Duration::ZERO,
            step_patience: Duration::from_secs(10),
        }
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    term: u64,
    observer: Observer,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Coordinator {
    /// Takes the lead over the root of `store`, takes up what is left of its jobs, and listens.
    ///
    /// # Errors
    /// If the store cannot be written or lets two creates win, the address not be listened on, or strangers could reach it.
    pub async fn start(store: Store, options: Options) -> Result<Self> {
        let listening =
            |e: std::io::Error| Error::Listen { address: options.listen.to_string(), reason: e.to_string() };
        allow_many_connections();
        let door = options.access.door(options.listen)?;
        let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        if options.lasting {
            data::store::probe::require_safe(&store).await?;
        }
        let leadership = Leadership::take(&store, &format!("{address} {}", unique())).await?;
        let term = leadership.term();
        // Whoever starts it wants to hear at once what is wrong with a store; from here on it is waited for.
        let store = store.patient(options.store_patience);
        info!(term, %address, root = store.url(), "leading");
        let stop = CancellationToken::new();
        let (inbox, inputs) = mpsc::channel(1024);
        let observer = Observer::new(inbox.clone(), door.certificate());
        let mut shell = Shell::new(store, options, leadership, inbox.clone());
        shell.take_up().await?;
        let server = tokio::spawn(rpc::serve(listener, door, inbox, stop.clone()));
        let task = tokio::spawn(run(shell, inputs, server, stop.clone()));
        Ok(Self { address, term, observer, stop, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many coordinators have led the root so far, this one included.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What tells of it those who watch it.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Tells the workers, stops listening and ends.
    ///
    /// # Errors
    /// What the coordinator ended of, if it ended before.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.join().await
    }

    /// Waits until the coordinator ends, by itself or by force.
    ///
    /// # Errors
    /// What it ended of.
    pub async fn join(self) -> Result<()> {
        self.task.await.map_err(|e| Error::Server(e.to_string()))?
    }

    /// What makes it stop, for whoever waits with [`Coordinator::join`].
    #[must_use]
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// Different for every start of any coordinator: several may listen on the same address of their machines.
fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance = RandomState::new().build_hasher().finish();
    format!("{:x}-{:x}-{chance:016x}", std::process::id(), since.as_nanos())
}

async fn run(
    mut shell: Shell,
    mut inputs: mpsc::Receiver<Input>,
    mut server: tokio::task::JoinHandle<Result<()>>,
    stop: CancellationToken,
) -> Result<()> {
    let mut tick = tokio::time::interval(TICK);
    let mut lead = tokio::time::interval(LEAD);
    let mut write = tokio::time::interval(WRITE);
    loop {
        tokio::select! {
            biased; // what workers have said comes before the clock that finds them silent
            () = stop.cancelled() => break,
            Some(deposed) = shell.deposed.recv() => {
                shell.dismiss("another coordinator leads").await;
                stop.cancel();
                return Err(deposed);
            }
            Some(input) = inputs.recv() => shell.take(input),
            _ = tick.tick() => {
                shell.feed(Event::Tick);
                shell.publish();
            }
            _ = lead.tick() => {
                shell.check_leadership();
                shell.let_go_of_the_forgotten();
            }
            _ = write.tick() => shell.write_journals(),
            ended = &mut server => return ended.map_err(|e| Error::Server(e.to_string()))?,
        }
    }
    shell.dismiss("the coordinator is stopping").await;
    drop(shell);
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended.map_err(|e| Error::Server(e.to_string()))?,
        Err(_) => Ok(()), // a client that keeps its stream open does not keep the coordinator
    }
}
