//! A coordinator in a process of its own, and processes of simulated workers around it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::fleet::Report;
use mllm4rec_integration_tests::prepared;
use proto::JobStatus;
use proto::pb::jobs_client::JobsClient;
use proto::pb::{GetRequest, SubmitRequest};
use tokio::runtime::Runtime;

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(900);

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Processes of workers.
    pub(crate) processes: usize,
    /// Connections of each.
    pub(crate) connections: usize,
    /// Workers of each.
    pub(crate) workers: usize,
    /// Shards of the job.
    pub(crate) shards: u32,
    /// The time that one takes on average.
    pub(crate) shard: Duration,
    /// Time between two heartbeats of a worker.
    pub(crate) heartbeat: Duration,
    /// Time that a new coordinator gives to those who hold something.
    pub(crate) grace: Duration,
}

/// Everything; ended with the value.
pub(crate) struct Cluster {
    size: Size,
    folder: tempfile::TempDir,
    runtime: Runtime,
    coordinator: Running,
    address: String,
    pub(crate) job: String,
    fleets: Vec<Running>,
}

/// A process that answers.
struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Cluster {
    /// Prepares the root, submits the job and starts the workers.
    pub(crate) fn start(size: Size) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let root = folder.path().join("root");
        let job = runtime.block_on(prepared::prepare(&root, &folder.path().join("data"), size.shards));
        let (coordinator, address) = lead(&root, "127.0.0.1:0", size);
        let submitted = async {
            let mut client = JobsClient::connect(format!("http://{address}")).await?;
            anyhow::Ok(client.submit(SubmitRequest { job_toml: job.to_toml() }).await?.into_inner().job_id)
        };
        let job = runtime.block_on(submitted).unwrap();
        let mut cluster = Self { size, folder, runtime, coordinator, address, job, fleets: Vec::new() };
        cluster.fleets = (0..size.processes).map(|number| cluster.fleet(number)).collect();
        cluster
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The process of the coordinator.
    pub(crate) fn pid(&self) -> u32 {
        self.coordinator.child.id()
    }

    /// Kills the coordinator as `kill -9` does.
    pub(crate) fn kill_the_coordinator(&mut self) {
        self.coordinator.child.kill().unwrap();
        self.coordinator.child.wait().unwrap();
    }

    /// Starts another where the last one was, and waits until it listens.
    pub(crate) fn start_the_coordinator(&mut self) {
        (self.coordinator, self.address) = lead(&self.root(), &self.address, self.size);
    }

    /// What all workers have seen since the last time.
    pub(crate) fn heard(&mut self) -> Report {
        let mut all = Report::default();
        for fleet in &mut self.fleets {
            writeln!(fleet.to).unwrap();
        }
        for fleet in &mut self.fleets {
            all.add(serde_json::from_str(&fleet.line()).unwrap());
        }
        all
    }

    /// Waits until the status of the job is such, or the job has ended.
    pub(crate) fn wait(&self, such: impl Fn(&JobStatus) -> bool) -> JobStatus {
        let asked = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let Ok(mut client) = JobsClient::connect(format!("http://{}", self.address)).await else { continue };
                let Ok(status) = client.get(GetRequest { job_id: self.job.clone() }).await else { continue };
                let status = JobStatus::try_from(status.into_inner()).unwrap();
                if such(&status) || status.state.ended() {
                    return status;
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await }).expect("it does not take so long")
    }

    fn fleet(&self, number: usize) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command.args(["workers", &format!("http://{}", self.address)]).arg(self.root()).arg(&self.job);
        command.args(["--workers", &self.size.workers.to_string()]);
        command.args(["--connections", &self.size.connections.to_string()]);
        command.args(["--shard", &self.size.shard.as_millis().to_string(), "--name", &format!("fleet{number}")]);
        Running::start(command)
    }
}

fn lead(root: &std::path::Path, listen: &str, size: Size) -> (Running, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.arg("coordinator").arg(root).args(["--listen", listen]);
    command.args(["--heartbeat", &size.heartbeat.as_millis().to_string()]);
    command.args(["--grace", &size.grace.as_millis().to_string()]);
    let mut running = Running::start(command);
    let started = Instant::now();
    let address = running.line().trim().to_owned();
    assert!(!address.is_empty(), "the coordinator ended after {:?}", started.elapsed());
    (running, address)
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
