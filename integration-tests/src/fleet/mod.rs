//! Many simulated workers in one process: real sessions over real connections, and shards that are only waited for.
//!
//! A simulated worker keeps to the contract as the real one does. It holds a lease for as long as its shards would take,
//! commits them through the real commit routine, survives its coordinator and claims what it held from the next one.

mod heard;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data::store::Store;
use proto::pb::GetRequest;
use proto::pb::jobs_client::JobsClient;
use tonic::transport::{Channel, Endpoint};

pub use heard::{Heard, Report, now};
use session::Hand;

/// Time between two questions of one connection.
const ASK: Duration = Duration::from_millis(500);
/// Connections that ask, at most: more questions would be a load of their own.
const ASKERS: usize = 25;
/// The longest pause between two attempts to reach a coordinator.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many workers there are, and how they work.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The coordinator, `http://host:port`.
    pub coordinator: String,
    /// The root of the store.
    pub root: PathBuf,
    /// The job whose status is asked for, to see how long the coordinator takes.
    pub job: String,
    /// Workers of this process.
    pub workers: usize,
    /// Connections that they share.
    pub connections: usize,
    /// The time that a shard takes on average.
    pub shard: Duration,
    /// Tells this process's workers from those of another.
    pub name: String,
}

impl Fleet {
    /// Starts the workers and those who ask. They end with the runtime.
    ///
    /// # Panics
    /// If the address is none, or the root cannot be opened.
    #[must_use]
    pub fn start(&self) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        let store = Store::open(&self.root.display().to_string()).expect("the root can be opened");
        let endpoint = Endpoint::from_shared(self.coordinator.clone()).expect("the address is one");
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(5));
        let channels: Vec<Channel> = (0..self.connections).map(|_| endpoint.connect_lazy()).collect();
        let askers = channels.len().min(ASKERS);
        for (number, channel) in channels.iter().take(askers).enumerate() {
            let turn = ASK.mul_f64(number as f64 / askers as f64);
            tokio::spawn(ask(channel.clone(), self.job.clone(), turn, Arc::clone(&heard)));
        }
        for number in 0..self.workers {
            let channel = channels[number % channels.len()].clone();
            let hand = Hand::new(format!("{}-{number}", self.name), number as u64, self.shard, store.clone());
            tokio::spawn(work(channel, hand, Arc::clone(&heard)));
        }
        heard
    }
}

/// Works for one coordinator after another.
async fn work(channel: Channel, mut hand: Hand, heard: Arc<Heard>) {
    let mut pause = Duration::from_millis(50);
    loop {
        if hand.session(channel.clone(), &heard).await {
            pause = Duration::from_millis(50);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks for the status of the job again and again. The question takes the way of a heartbeat, through the same connection
/// into the same queue, and comes back: a heartbeat is handled sooner.
async fn ask(channel: Channel, job: String, first: Duration, heard: Arc<Heard>) {
    let mut client = JobsClient::new(channel);
    // One connection after the other: together they would queue behind each other.
    let mut turn = tokio::time::interval_at(tokio::time::Instant::now() + first, ASK);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let asked = Instant::now();
        if client.get(GetRequest { job_id: job.clone() }).await.is_ok() {
            heard.answered(asked.elapsed());
        }
    }
}
