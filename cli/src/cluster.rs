//! A cluster on one machine: a coordinator in this process and workers in processes of their own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator::{Coordinator, Options};
use data::store::Store;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::progress::Printer;

/// How long workers may take to leave once they are told.
const LEAVE: Duration = Duration::from_secs(20);

/// A coordinator and its workers.
pub(crate) struct Cluster {
    coordinator: Coordinator,
    workers: Vec<Child>,
}

impl Cluster {
    /// Starts the coordinator; workers come when there is work.
    pub(crate) async fn start(store: Store) -> Result<Self> {
        let options = Options { digest_cache: digest_cache(), ..Options::default() };
        Ok(Self { coordinator: Coordinator::start(store, options).await?, workers: Vec::new() })
    }

    /// The coordinator's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.coordinator.address())
    }

    /// Starts workers that share this machine's cores. What they log is printed by `printer`.
    pub(crate) fn add_workers(&mut self, count: u32, printer: &Printer) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (cores / count.max(1) as usize).max(1);
        let program = std::env::current_exe().context("cannot find this program to start workers")?;
        for i in 1..=count {
            let name = format!("worker-{i}");
            let mut child = Command::new(&program)
                .args(["worker", "--with-parent", "--coordinator", &self.url(), "--name", &name])
                .args(["--threads", &threads.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("cannot start {name}"))?;
            if let Some(stderr) = child.stderr.take() {
                let printer = printer.clone();
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stderr).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        printer.line(&format!("{name}: {line}"));
                    }
                });
            }
            self.workers.push(child);
        }
        Ok(())
    }

    /// Whether every worker has ended, so that nobody is left to work.
    pub(crate) fn deserted(&mut self) -> bool {
        !self.workers.is_empty() && self.workers.iter_mut().all(|w| matches!(w.try_wait(), Ok(Some(_))))
    }

    /// Lets the workers finish what cannot be cut, then ends everything.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let stopped = self.coordinator.stop().await;
        let leave = async {
            for worker in &mut self.workers {
                let _ = worker.wait().await;
            }
        };
        let _ = tokio::time::timeout(LEAVE, leave).await;
        stopped.map_err(Into::into)
    }
}

/// Where digests of input files are remembered between runs.
fn digest_cache() -> Option<std::path::PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(Into::into).or_else(home)?;
    Some(cache.join("mllm4rec").join("inputs.json"))
}
