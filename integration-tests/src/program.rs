//! The real binary, started as a user would start it, and a workshop of files around it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use data::job::Job;

use crate::outputs::JobOutputs;
use crate::{base, shop};

/// The longest that a command of a test may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The binary beside the test that runs.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2).expect("tests are built into <target>/<profile>/deps");
    let binary = folder.join(format!("mllm4rec{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is not built: run `cargo build --release --workspace` first", binary.display());
    binary
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// What a process left that has ended.
    #[must_use]
    pub fn of(output: Output, started: Instant) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            took: started.elapsed(),
        }
    }

    /// Fails the test with what the command said, unless it succeeded.
    ///
    /// # Panics
    /// If the exit code is not 0.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A folder with a dataset, a language model and the roots of jobs; gone at the end of the test.
#[derive(Debug)]
pub struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    /// Makes the dataset of [`shop`] and the model of [`base`].
    ///
    /// # Panics
    /// If there is no temporary folder.
    #[must_use]
    pub fn open() -> Self {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        shop::write(&folder.path().join("data"));
        base::write(&folder.path().join("base"), |_| {});
        Self { folder }
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the job file of the tests: every stage, small sizes.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn job(&self) -> PathBuf {
        let text = format!(
            r#"schema_version = 1
name = "small"
[dataset]
format = "movielens"
path = {data:?}
min_interactions_per_user = 1
min_interactions_per_item = 2
shard_users = 16
[retriever]
hidden = 16
layers = 1
dropout = 0.1
max_length = 20
batch_size = 16
max_epochs = 3
validate_every = 10
candidates = 8
[ranker]
base = {base:?}
role = "You pick films."
history = 3
negatives = "mixed"
batch_size = 4
warmup_steps = 2
max_steps = 6
validate_every = 3
"#,
            data = self.path("data"),
            base = self.path("base"),
        );
        let path = self.path("job.toml");
        std::fs::write(&path, text).expect("the job file can be written");
        path
    }

    /// The job file as a coordinator is given it, with overrides and a root of its own.
    ///
    /// # Panics
    /// If an override is wrong.
    #[must_use]
    pub fn parsed(&self, root: &str, sets: &[&str]) -> Job {
        let text = std::fs::read_to_string(self.job()).expect("the job file can be read");
        let root = format!("output.root={:?}", self.path(root).display().to_string());
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).chain([root]).collect();
        let mut job = Job::parse("job.toml", &text, &sets).expect("the job file is right");
        job.inline_template(model::ranker::DEFAULT_TEMPLATE.to_owned());
        job
    }

    /// A command of the binary with a digest cache of its own.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("RUST_LOG")
            .env_remove("MLLM4REC_COORDINATOR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command of the binary to its end.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Ended {
        let started = Instant::now();
        Ended::of(wait(self.command(args).spawn().expect("the binary can be started")), started)
    }

    /// Runs the job into a root of its own, with more arguments behind.
    #[must_use]
    pub fn run(&self, root: &str, more: &[&str]) -> Ended {
        let started = Instant::now();
        Ended::of(wait(self.start(root, more)), started)
    }

    /// Starts the job and does not wait for it.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn start(&self, root: &str, more: &[&str]) -> Child {
        let (job, root) = (self.job().display().to_string(), self.path(root).display().to_string());
        let mut command = self.command(&["run", &job, "--root", &root]);
        command.args(more).spawn().expect("the binary can be started")
    }

    /// Runs the job to its end and opens what it wrote.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn finish(&self, root: &str, more: &[&str]) -> JobOutputs {
        let more = [more, &["--json"]].concat();
        let ended = self.run(root, &more).succeeded();
        let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("--json prints JSON");
        let job = said["job"].as_str().expect("the result names the job");
        JobOutputs::open(&self.path(root), job)
    }
}

/// Waits for a command and reads what it writes meanwhile; one that hangs is ended.
///
/// # Panics
/// If it does not end in time.
#[must_use]
pub fn wait(mut child: Child) -> Output {
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("the command can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                panic!("no end after {PATIENCE:?}: {}", String::from_utf8_lossy(&read(stderr)));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Output { status, stdout: read(stdout), stderr: read(stderr) }
}

/// Reads a stream to its end, beside whoever waits for the one who writes it.
fn reader(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut bytes).expect("its output can be read");
        }
        bytes
    })
}

fn read(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().expect("its output can be read")
}

/// Interrupts a command as Ctrl-C does and waits for its end.
///
/// # Panics
/// If the signal cannot be sent.
#[must_use]
pub fn interrupt(child: Child) -> Ended {
    let started = Instant::now();
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("there is a kill command").success(), "the command had ended before");
    Ended::of(wait(child), started)
}

/// The processes that a command has started.
///
/// # Panics
/// If the system does not tell.
#[must_use]
pub fn children(parent: &Child) -> Vec<u32> {
    let output = Command::new("ps").args(["-o", "pid=,ppid=", "-A"]).output().expect("there is a ps command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |line: &str| {
        let (pid, ppid) = line.trim().split_once(char::is_whitespace)?;
        Some((pid.parse().ok()?, ppid.trim().parse::<u32>().ok()?))
    };
    text.lines().filter_map(pair).filter(|(_, ppid)| *ppid == parent.id()).map(|(pid, _)| pid).collect()
}

/// Tells a process to leave.
pub fn terminate(pid: u32) {
    let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Whether any file below a folder has this name.
#[must_use]
pub fn holds(folder: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { holds(&path, name) } else { entry.file_name() == name }
    })
}
