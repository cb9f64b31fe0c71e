//! A coordinator and workers, each a process of the real binary, and whoever starts again what died.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::program::{Ended, Workshop, wait};
use serde_json::Value;

use crate::bucket::{self, Bucket};
use crate::population::{Population, sets};

/// The longest that anything here may take without getting further.
const PATIENCE: Duration = Duration::from_secs(120);
/// Silence for so long is a loss.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);

/// A process of the cluster; killed at the latest at the end of its test.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as the system does that is out of memory.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it was killed; it may not end in another way.
    fn was_killed(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(9), "{} ended by itself, {status}:\n{}", self.name, self.said());
        true
    }

    /// Whether it has ended.
    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().and_then(|status| status.code())
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the root is.
pub(crate) enum Place {
    Folder,
    Bucket(Bucket),
}

/// Everything about one cluster, in a folder that is gone at the end of the test.
pub(crate) struct Cluster {
    workshop: Workshop,
    place: Place,
    root: PathBuf,
    address: String,
    started: u32,
    pub(crate) coordinator: Option<Process>,
    pub(crate) workers: Vec<Process>,
    /// Arguments of coordinators beyond the usual ones.
    pub(crate) coordinator_args: Vec<String>,
    /// Variables of coordinators and of workers.
    pub(crate) environment: BTreeMap<&'static str, Vec<(String, String)>>,
    /// Processes that died and were started again.
    pub(crate) deaths: u32,
}

impl Cluster {
    /// A cluster over a root in which a population is prepared and all models are trained, and nobody works yet.
    pub(crate) fn over(population: &Population, in_bucket: bool, undone: u32) -> Self {
        let workshop = Workshop::open();
        let root = workshop.path("root");
        population.unscored(&root, undone);
        let place = if in_bucket { Place::Bucket(Bucket::over(&root)) } else { Place::Folder };
        Self::at(workshop, place, root)
    }

    /// A cluster whose root is somewhere special.
    pub(crate) fn at(workshop: Workshop, place: Place, root: PathBuf) -> Self {
        let address = free_address();
        let environment = BTreeMap::from([("coordinator", Vec::new()), ("worker", Vec::new())]);
        let (coordinator, workers, coordinator_args) = (None, Vec::new(), Vec::new());
        let (started, deaths) = (0, 0);
        Self { workshop, place, root, address, started, coordinator, workers, coordinator_args, environment, deaths }
    }

    /// Starts a coordinator and workers.
    pub(crate) fn start(&mut self, workers: usize) {
        self.coordinator = Some(self.new_coordinator());
        self.workers = (0..workers).map(|_| self.new_worker()).collect();
    }

    /// The folder in which the root's objects lie, wherever the cluster thinks that they do.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workshop.path(name)
    }

    pub(crate) fn bucket(&self) -> &Bucket {
        match &self.place {
            Place::Bucket(bucket) => bucket,
            Place::Folder => panic!("the root is a folder"),
        }
    }

    /// Starts another coordinator at the same address.
    pub(crate) fn new_coordinator(&mut self) -> Process {
        let root = match self.place {
            Place::Folder => self.root.display().to_string(),
            Place::Bucket(_) => format!("s3://{}", bucket::NAME),
        };
        let (address, own) = (self.address.clone(), self.coordinator_args.clone());
        let dead_after = format!("{}ms", DEAD_AFTER.as_millis());
        // Whoever kills at random kills innocent shards' workers.
        let usual = ["--heartbeat", "250ms", "--dead-after", &dead_after, "--quarantine-after", "1000"];
        let mut args = vec!["coordinator", "--root", &root, "--listen", &address];

        args.extend(usual.chunks(2).filter(|pair| !own.iter().any(|arg| arg == pair[0])).flatten());
        args.extend(own.iter().map(String::as_str));
        self.process("coordinator", &args)
    }

    pub(crate) fn new_worker(&mut self) -> Process {
        let url = self.url();
        self.process("worker", &["worker", "--coordinator", &url, "--devices", "cpu", "--threads", "1"])
    }

    fn process(&mut self, role: &'static str, args: &[&str]) -> Process {
        self.started += 1;
        let name = format!("{role}-{}", self.started);
        let log = self.workshop.path(&format!("{name}.log"));
        let mut command = self.workshop.command(args);
        command.args(["--log-format", "json"]).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        command.envs(self.environment[role].iter().cloned());
        if let Place::Bucket(bucket) = &self.place {
            command.envs(bucket.environment(&name));
        }
        let child = command.spawn().unwrap();
        if let Place::Bucket(bucket) = &self.place {
            bucket.introduce(&name, child.id());
        }
        Process { name, child, log }
    }

    /// Kills a worker and starts another one.
    pub(crate) fn kill_worker(&mut self, place: usize) {
        self.workers[place].kill();
        self.workers[place] = self.new_worker();
    }

    /// Starts the workers again that ended, however they did.
    pub(crate) fn revive(&mut self) {
        for place in 0..self.workers.len() {
            if self.workers[place].has_ended() {
                self.workers[place] = self.new_worker();
            }
        }
    }

    /// Kills the coordinator and starts another one.
    pub(crate) fn kill_coordinator(&mut self) {
        if let Some(mut killed) = self.coordinator.take() {
            killed.kill();
        }
        self.coordinator = Some(self.new_coordinator());
    }

    /// Starts again who was killed, as a supervisor does.
    pub(crate) fn tend(&mut self) {
        if self.coordinator.as_mut().is_some_and(Process::was_killed) {
            self.deaths += 1;
            self.coordinator = Some(self.new_coordinator());
        }
        for place in 0..self.workers.len() {
            if self.workers[place].was_killed() {
                self.deaths += 1;
                self.workers[place] = self.new_worker();
            }
        }
    }

    /// Whoever is started from now on is somewhere else than those who run.
    pub(crate) fn move_away(&mut self) {
        self.address = free_address();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn call(&self, args: &[&str]) -> Ended {
        let mut command = self.workshop.command(&[args, &["--coordinator", &self.url(), "--json"]].concat());
        if let Place::Bucket(bucket) = &self.place {
            command.envs(bucket.environment("client"));
        }
        Ended::of(wait(command.spawn().unwrap()), Instant::now())
    }

    /// Submits the job, as soon as a coordinator takes it. Returns its id.
    pub(crate) fn submit(&mut self, population: &Population) -> String {
        self.submit_with(population, &[])
    }

    /// The same with more overrides.
    pub(crate) fn submit_with(&mut self, population: &Population, more: &[&str]) -> String {
        self.submit_file(&population.job(), more)
    }

    /// Submits a job file, as soon as a coordinator takes it. Returns the job's id.
    pub(crate) fn submit_file(&mut self, job: &Path, more: &[&str]) -> String {
        let (job, sets) = (job.display().to_string(), sets(more));
        let args: Vec<&str> = ["submit", &job].into_iter().chain(sets.iter().map(String::as_str)).collect();
        let mut submitted = None;
        self.until("the job is taken", |cluster| {
            let ended = cluster.call(&args);
            assert!(matches!(ended.code, Some(0 | 75)), "{}", ended.stderr);
            submitted = (ended.code == Some(0)).then_some(ended.stdout);
            submitted.is_some()
        });
        let said: Value = serde_json::from_str(&submitted.unwrap()).unwrap();
        said["job"].as_str().unwrap().to_owned()
    }

    /// The status of a job, if somebody answers.
    pub(crate) fn status(&self, job: &str) -> Option<Value> {
        let ended = self.call(&["status", job]);
        if ended.code == Some(0) { serde_json::from_str(&ended.stdout).ok() } else { None }
    }

    /// Looks again and again until something is so, and starts again who was killed meanwhile.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let (mut since, mut done) = (Instant::now(), self.records());
        loop {
            self.tend();
            if is_so(self) {
                return;
            }
            let now = self.records();
            if now != done {
                (since, done) = (Instant::now(), now);
            }
            assert!(since.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of a job. Returns its last status.
    pub(crate) fn end_of(&mut self, job: &str) -> Value {
        let mut last = None;
        let mut looked = Instant::now();
        self.until("the job ends", |cluster| {
            if looked.elapsed() < Duration::from_millis(200) {
                return false;
            }
            looked = Instant::now();
            last = cluster.status(job).filter(|status| status["state"] != "running");
            last.is_some()
        });
        last.unwrap()
    }

    /// How many shards of a stage are done, over all of its artifacts.
    pub(crate) fn done(&self, stage: &str) -> usize {
        let artifacts = fs::read_dir(self.root.join("_control/v1/artifacts").join(stage));
        let names = |folder: fs::DirEntry| fs::read_dir(folder.path().join("done")).ok().map(Iterator::count);
        artifacts.map_or(0, |artifacts| artifacts.flatten().filter_map(names).sum())
    }

    fn records(&self) -> usize {
        ["retrieve", "rank", "evaluate"].map(|stage| self.done(stage)).iter().sum()
    }

    /// The logs of all processes of a role, those that died included, in the order in which they were started.
    pub(crate) fn logs(&self, role: &str) -> Vec<(String, Vec<Value>)> {
        let name = |number: &u32| format!("{role}-{number}");
        let read = |name: String| Some((fs::read_to_string(self.workshop.path(&format!("{name}.log"))).ok()?, name));
        let lines = |text: String| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (1..=self.started)
            .map(|number| name(&number))
            .filter_map(read)
            .map(|(text, name)| (name, lines(text)))
            .collect()
    }

    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        for process in self.coordinator.iter().chain(&self.workers) {
            let said = process.said();
            let from = said.lines().count().saturating_sub(8);
            words += &format!("{}:\n{}\n", process.name, said.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
        words
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
    assert!(sent.unwrap().success(), "there is no process {pid}");
}

/// Whether a process runs; one that was killed and not yet waited for does not.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
