//! A cluster on one machine: a coordinator in this process and workers in processes of their own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coordinator::{Coordinator, Options};
use data::store::Store;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use worker::devices::Choice;

use crate::connection::Reach;
use crate::progress::Printer;

/// How long workers may take to leave once they are told.
const LEAVE: Duration = Duration::from_secs(20);

/// Seconds for which a worker looks for the coordinator, which lives as long as this process.
const PATIENCE: &str = "60";

/// Workers that end by themselves are started again so often in one run; a machine that kills more has another problem.
const REVIVALS: u32 = 10;

/// A coordinator and its workers.
pub(crate) struct Cluster {
    coordinator: Coordinator,
    workers: Vec<(String, Child)>,
    devices: Choice,
    threads: usize,
    revivals: u32,
}

impl Cluster {
    /// Starts the coordinator; workers come when there is work, and take the devices in turn.
    pub(crate) async fn start(store: Store, devices: Choice) -> Result<Self> {
        let options = Options { digest_cache: digest_cache(), ..Options::default() };
        let coordinator = Coordinator::start(store, options).await?;
        Ok(Self { coordinator, workers: Vec::new(), devices, threads: 1, revivals: 0 })
    }

    /// The coordinator's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.coordinator.address())
    }

    /// Starts workers that share this machine's cores. What they log is printed by `printer`.
    pub(crate) fn add_workers(&mut self, count: u32, printer: &Printer) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads = (cores / count.max(1) as usize).max(1);
        for i in 0..count.max(1) as usize {
            let name = format!("worker-{}", i + 1);
            let child = self.spawn(i, &name, printer)?;
            self.workers.push((name, child));
        }
        Ok(())
    }

    /// Starts workers again that have ended, killed by the system for their memory, say. The coordinator gives what they
    /// held to somebody else, and gives up on a shard that costs too many of them.
    pub(crate) fn revive(&mut self, printer: &Printer) -> Result<()> {
        for i in 0..self.workers.len() {
            let (name, child) = &mut self.workers[i];
            let Ok(Some(status)) = child.try_wait() else { continue };
            let name = name.clone();
            // One that was told to leave has left in order; somebody preempts workers here, and may go on to.
            let told = status.code() == Some(i32::from(crate::exit::DRAINED));
            self.revivals += u32::from(!told);
            if self.revivals > REVIVALS {
                bail!(
                    "{name} ended ({status}), after {REVIVALS} others in this run; what they said stands above. The same command resumes the job"
                );
            }
            printer.line(&format!("{name} ended ({status}), starting it again"));
            self.workers[i].1 = self.spawn(i, &name, printer)?;
        }
        Ok(())
    }

    fn spawn(&self, number: usize, name: &str, printer: &Printer) -> Result<Child> {
        let program = std::env::current_exe().context("cannot find this program to start workers")?;
        let mut command = Command::new(&program);
        // What is meant for a coordinator elsewhere is none of this one's business.
        for variable in Reach::VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command
            .args(["worker", "--with-parent", "--patience", PATIENCE, "--coordinator", &self.url(), "--name", name])
            .args(["--threads", &self.threads.to_string(), "--devices", &self.devices.place(number).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if let Some(stderr) = child.stderr.take() {
            let (printer, name) = (printer.clone(), name.to_owned());
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    printer.line(&format!("{name}: {line}"));
                }
            });
        }
        Ok(child)
    }

    /// Lets the workers finish what cannot be cut, then ends everything.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let stopped = self.coordinator.stop().await;
        let leave = async {
            for (_, worker) in &mut self.workers {
                let _ = worker.wait().await;
            }
        };
        let _ = tokio::time::timeout(LEAVE, leave).await;
        stopped.map_err(Into::into)
    }
}

/// Where digests of input files are remembered between runs.
pub(crate) fn digest_cache() -> Option<std::path::PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(Into::into).or_else(home)?;
    Some(cache.join("mllm4rec").join("inputs.json"))
}
