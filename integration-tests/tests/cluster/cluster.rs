//! A coordinator and its workers on a folder, each a process of the real binary.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::program::{Ended, Workshop, children, terminate};
use serde_json::Value;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that runs until it is told to end; killed at the latest at the end of its test.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Kills it, as the system does that is out of memory.
    pub(crate) fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    /// Kills one of the processes that it has started.
    pub(crate) fn kill_child(&self) {
        let child = children(&self.child)[0].to_string();
        assert!(Command::new("kill").args(["-KILL", &child]).status().unwrap().success());
    }

    /// Tells it to end and waits. Returns the exit code and how long that took.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        terminate(self.child.id());
        let mut code = None;
        until("the process ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        (code.unwrap().code(), started.elapsed())
    }

    /// Waits until it ends by itself. Returns the exit code and its log.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, std::fs::read_to_string(&self.log).unwrap())
    }

    /// What it has logged, one object a line.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A root, and the coordinator that leads it.
pub(crate) struct Cluster {
    pub(crate) workshop: Workshop,
    url: String,
    started: u32,
}

impl Cluster {
    /// A root without a coordinator.
    pub(crate) fn new() -> Self {
        Self { workshop: Workshop::open(), url: "http://127.0.0.1:0".to_owned(), started: 0 }
    }

    /// The root.
    pub(crate) fn root(&self) -> PathBuf {
        self.workshop.path("root")
    }

    /// Starts a coordinator, at the address of the one before it if there was one.
    pub(crate) fn coordinator(&mut self) -> Server {
        self.coordinator_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn coordinator_with(&mut self, more: &[&str]) -> Server {
        let (root, listen) = (self.root().display().to_string(), self.url.replace("http://", ""));
        let args = ["coordinator", "--root", &root, "--listen", &listen, "--heartbeat", "200ms", "--dead-after", "3s"];
        let mut server = self.server(&[&args[..], more].concat());
        let mut line = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let said = std::fs::read_to_string(&server.log).unwrap();
        self.url = format!("http://{}", address.unwrap_or_else(|| panic!("no address in `{line}`\n{said}")));
        server
    }

    /// Starts a worker.
    pub(crate) fn worker(&mut self) -> Server {
        self.worker_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn worker_with(&mut self, more: &[&str]) -> Server {
        let url = self.url.clone();
        self.server(&[&["worker", "--coordinator", &url, "--devices", "cpu", "--threads", "1"], more].concat())
    }

    /// Starts so many workers as one.
    pub(crate) fn workers(&mut self, count: u32) -> Server {
        let (url, count) = (self.url.clone(), count.to_string());
        self.server(&["worker", "--coordinator", &url, "--devices", "cpu", "--count", &count])
    }

    fn server(&mut self, args: &[&str]) -> Server {
        self.started += 1;
        let log = self.workshop.path(&format!("{}-{}.log", args[0], self.started));
        let mut command = self.workshop.command(args);
        command.args(["--log-format", "json"]).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        Server { child: command.spawn().unwrap(), log }
    }

    /// Calls a command that talks to the coordinator.
    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        self.workshop.call(&[args, &["--coordinator", &self.url]].concat())
    }

    /// Starts one and does not wait for it.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.workshop.command(&[args, &["--coordinator", &self.url]].concat()).spawn().unwrap()
    }

    /// What such a command prints as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ended = self.call(&[args, &["--json"]].concat()).succeeded();
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", ended.stdout))
    }

    /// The arguments that submit the job of these tests: 60 shards of users, of which the ranking takes a while.
    pub(crate) fn submission(&self) -> Vec<String> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base");
        let mut args = vec!["submit".to_owned(), self.workshop.job().display().to_string()];
        args.extend(self.sets(&base));
        args
    }

    /// The overrides of that job.
    pub(crate) fn sets(&self, base: &Path) -> Vec<String> {
        let sets = [
            r#"splits=["test"]"#.to_owned(),
            "dataset.shard_users=2".to_owned(),
            "retriever.candidates=20".to_owned(),
            format!("ranker.base={:?}", base.display().to_string()),
            "ranker.history=12".to_owned(),
            r#"ranker.negatives="random""#.to_owned(),
            "ranker.max_steps=2".to_owned(),
        ];
        sets.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect()
    }

    /// Submits it and returns its id.
    pub(crate) fn submit(&self) -> String {
        let submission = self.submission();
        let args: Vec<&str> = submission.iter().map(String::as_str).collect();
        self.json(&args)["job"].as_str().unwrap().to_owned()
    }

    /// Submits it once more, with other settings.
    pub(crate) fn resubmit(&self, settings: &[&str]) -> Ended {
        let submission = self.submission();
        let args: Vec<&str> = submission.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        self.call(&args)
    }

    /// One stage of a job.
    pub(crate) fn stage(&self, job: &str, stage: &str) -> Value {
        let status = self.json(&["status", job]);
        let stages = status["stages"].as_array().unwrap();
        stages.iter().find(|s| s["stage"] == stage).unwrap_or_else(|| panic!("no stage {stage} in {status:#}")).clone()
    }

    /// Waits until so many shards of a stage are done.
    pub(crate) fn until_done(&self, job: &str, stage: &str, shards: u64) {
        until(&format!("{shards} shards of {stage} are done"), || {
            self.stage(job, stage)["shards"]["done"].as_u64().unwrap() >= shards
        });
    }

    /// The done records of a stage, by name, with what they hold.
    pub(crate) fn records(&self, job: &str, stage: &str) -> Vec<(String, Vec<u8>)> {
        let digest = self.stage(job, stage)["digest"].as_str().unwrap().to_owned();
        let folder = self.root().join(format!("_control/v1/artifacts/{stage}/{digest}/done"));
        let mut records: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect();
        records.sort();
        records
    }
}

/// Looks again and again until something has happened.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Shards of a stage that a coordinator's log says were given out, in order.
pub(crate) fn granted(log: &[Value], stage: &str) -> Vec<u32> {
    let of_stage = |line: &&Value| {
        line["message"] == "lease granted" && line["artifact"].as_str().is_some_and(|a| a.starts_with(stage))
    };
    let shards = |line: &Value| -> Vec<u32> { serde_json::from_str(line["shards"].as_str().unwrap()).unwrap() };
    log.iter().filter(of_stage).flat_map(shards).collect()
}
