//! The processes of the tests of large clusters: a coordinator alone, or many simulated workers.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use coordinator::core::Policy;
use coordinator::{Coordinator, Options};
use data::store::Store;
use mllm4rec_integration_tests::fleet::Fleet;

/// A part of a large cluster.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Leads over a folder and prints its address, as `mllm4rec coordinator` does, with other limits and without a lock.
    Coordinator {
        /// The folder.
        root: PathBuf,
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Milliseconds between two heartbeats of a worker.
        #[arg(long, default_value_t = 1000)]
        heartbeat: u64,
        /// Milliseconds in which workers of the coordinator before may claim what they hold.
        #[arg(long, default_value_t = 5000)]
        grace: u64,
        /// Milliseconds after which a worker that is silent is lost.
        #[arg(long, default_value_t = 10_000)]
        dead_after: u64,
    },
    /// Works; prints what was seen since the last time for every line on standard input, and ends with it.
    Workers {
        /// The coordinator, `http://host:port`.
        coordinator: String,
        /// The folder that it leads over.
        root: PathBuf,
        /// The job that is watched.
        job: String,
        /// Workers.
        #[arg(long)]
        workers: usize,
        /// Connections that they share.
        #[arg(long)]
        connections: usize,
        /// Milliseconds that a shard takes on average.
        #[arg(long)]
        shard: u64,
        /// Tells these workers from those of other processes.
        #[arg(long)]
        name: String,
    },
}

fn main() -> anyhow::Result<()> {
    coordinator::allow_many_connections();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Args::parse().role {
        Role::Coordinator { root, listen, heartbeat, grace, dead_after } => {
            let [heartbeat, claim_grace, dead_after] = [heartbeat, grace, dead_after].map(Duration::from_millis);
            let policy = Policy { claim_grace, dead_after, ..Policy::default() };
            let options = Options { listen, policy, heartbeat, lasting: true, ..Options::default() };
            let store = Store::open(&root.display().to_string())?;
            runtime.block_on(async {
                let coordinator = Coordinator::start(store, options).await?;
                println!("{}", coordinator.address());
                Ok(coordinator.join().await?)
            })
        }
        Role::Workers { coordinator, root, job, workers, connections, shard, name } => {
            let shard = Duration::from_millis(shard);
            let fleet = Fleet { coordinator, root, job, workers, connections, shard, name };
            let heard = {
                let _entered = runtime.enter();
                fleet.start()
            };
            for line in std::io::stdin().lock().lines() {
                line?;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}", serde_json::to_string(&heard.report())?)?;
                out.flush()?;
            }
            runtime.shutdown_background();
            Ok(())
        }
    }
}
