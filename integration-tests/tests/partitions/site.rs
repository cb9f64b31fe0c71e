//! A secured cluster of the real binary over a bucket, spread over the hosts of a network.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data::store::Store;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, binary};
use mllm4rec_integration_tests::servers::MOTO;
use serde_json::Value;

use crate::network::{Host, Network};

/// The longest that anything but a partition may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A process; ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cluster. Its processes end before its network does.
pub(crate) struct Site {
    _processes: Vec<Running>,
    pub(crate) network: Network,
    workshop: Workshop,
}

impl Site {
    /// Starts everything, where the system lets us and moto is there.
    pub(crate) fn start() -> Option<Self> {
        let Some(python) = std::env::var_os(MOTO) else {
            println!("SKIPPED: {MOTO} names no Python with moto; `cargo xtask check` installs it");
            return None;
        };
        let network = Network::lay()?;
        let workshop = Workshop::open();
        let mut site = Self { _processes: Vec::new(), network, workshop };
        let host = site.network.address(Host::Coordinator);
        let certificates = site.workshop.path("certs").display().to_string();
        let _ = site.workshop.call(&["certs", "--out", &certificates, "--host", &host]).succeeded();
        let everybody = site.file("policies.json", r#"{"test": "everything"}"#);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bucket.py").display().to_string();
        let bucket = [script, "0.0.0.0".to_owned(), "5000".to_owned(), everybody, site.file("denied.jsonl", "")];
        site.run(Host::Store, Path::new(&python), &bucket, true);
        let mut lead: Vec<String> = ["coordinator", "--root", "s3://shop/run", "--listen"].map(str::to_owned).to_vec();
        lead.push(format!("{host}:7070"));
        lead.extend(site.files(&[("tls-cert", "server"), ("tls-key", "server-key"), ("client-ca", "ca")]));
        site.run(Host::Coordinator, &binary(), &lead, true);
        let mut work: Vec<String> =
            ["worker", "--devices", "cpu", "--count", "2", "--threads", "1"].map(str::to_owned).to_vec();
        work.extend(site.reach("worker"));
        site.run(Host::Workers, &binary(), &work, false);
        Some(site)
    }

    /// Submits a job of 60 shards that is like no other.
    pub(crate) fn submit(&self, seed: usize) -> String {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base").display().to_string();
        let sets = [
            format!("seed={seed}"),
            r#"splits=["test"]"#.to_owned(),
            "dataset.shard_users=2".to_owned(),
            "retriever.candidates=20".to_owned(),
            format!("ranker.base={base:?}"),
            "ranker.history=12".to_owned(),
            r#"ranker.negatives="random""#.to_owned(),
            "ranker.max_steps=2".to_owned(),
        ];
        let job = self.workshop.job().display().to_string();
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let args: Vec<&str> = ["submit", job.as_str()].into_iter().chain(sets).collect();
        self.json(&args)["job"].as_str().unwrap().to_owned()
    }

    /// The state of a job, and how many shards its stages have done.
    pub(crate) fn done(&self, job: &str) -> (String, u64, u64) {
        let status = self.json(&["status", job]);
        let stages = status["stages"].as_array().unwrap();
        let shards = |stage: &Value| stage["shards"]["done"].as_u64().unwrap_or(0);
        let rank = stages.iter().filter(|s| s["stage"] == "rank").map(shards).sum();
        (status["state"].as_str().unwrap().to_owned(), stages.iter().map(shards).sum(), rank)
    }

    /// Looks again and again until something has happened, and says how long that took.
    pub(crate) fn until(&self, what: &str, happened: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !happened(self) {
            assert!(started.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
        started.elapsed()
    }

    /// What a job wrote.
    pub(crate) fn outputs(&self, job: &str) -> JobOutputs {
        let variables = self.variables();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        JobOutputs::of(Store::open_with("s3://shop/run", &variables).unwrap(), job)
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).chain(self.reach("operator")).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["--json"]).collect();
        let ended = self.workshop.call(&args).succeeded();
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", ended.stdout))
    }

    fn run(&mut self, host: Host, program: &Path, args: &[String], waits: bool) {
        let mut command: Command = self.network.inside(host, program);
        let log = std::fs::File::create(self.workshop.path(&format!("{host:?}.log"))).unwrap();
        command.args(args).envs(self.variables()).env_remove("RUST_LOG");
        command.env("XDG_CACHE_HOME", self.workshop.path("cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        if waits {
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let said = std::fs::read_to_string(self.workshop.path(&format!("{host:?}.log"))).unwrap();
            assert!(!line.is_empty(), "{host:?} ended: {said}");
        }
        self._processes.push(Running(child));
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}:5000", self.network.address(Host::Store))),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "testtest".into()),
            ("AWS_TIMEOUT", format!("{}s", crate::TIMEOUT.as_secs())),
        ]
    }

    /// How to reach the coordinator, and as whom.
    fn reach(&self, role: &str) -> Vec<String> {
        let url = format!("https://{}:7070", self.network.address(Host::Coordinator));
        let key = format!("{role}-key");
        let mut args = vec!["--coordinator".to_owned(), url];
        args.extend(self.files(&[("tls-ca", "ca"), ("tls-cert", role), ("tls-key", &key)]));
        args
    }

    /// Writes a file and says where it is.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.workshop.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn files(&self, files: &[(&str, &str)]) -> Vec<String> {
        let folder: PathBuf = self.workshop.path("certs");
        let file = |name: &str| folder.join(format!("{name}.pem")).display().to_string();
        files.iter().flat_map(|(option, name)| [format!("--{option}"), file(name)]).collect()
    }
}
