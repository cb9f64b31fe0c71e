//! Faults on purpose: what tests of a gang let happen to a member, and where.
//!
//! `MLLM4REC_FAULTS` names a folder of files called `<fault>@<phase>`, for example `kill@all_reduce`. The first member that comes to
//! the phase takes the file away, as `fired-<pid>-…`, and does what it says: every file is one fault, and what is left has not
//! happened. Without the variable nothing is looked at.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// How long a slow member is slow.
const SLOW: Duration = Duration::from_millis(800);

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before it says that it is ready.
    Join,
    /// Before it compares its state with the others'.
    Sync,
    /// Before it computes its slices.
    Forward,
    /// Before it sums with the others.
    AllReduce,
    /// Between the sum and the update.
    Commit,
    /// Before it writes a checkpoint.
    Checkpoint,
}

/// What the member has to do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Close its streams.
    Abort,
    /// Take its gradients for broken.
    Nan,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Sync => "sync",
            Self::Forward => "forward",
            Self::AllReduce => "all_reduce",
            Self::Commit => "commit",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Lets happen what is to happen here.
pub(crate) fn meet(phase: Phase) -> Option<Fault> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os("MLLM4REC_FAULTS").map(PathBuf::from)).as_ref()?;
    for fault in ["kill", "exit", "panic", "hang", "abort", "nan", "slow"] {
        let name = format!("{fault}@{}", phase.name());
        let taken = folder.join(format!("fired-{}-{name}", std::process::id()));
        if std::fs::rename(folder.join(&name), taken).is_ok() {
            tracing::warn!(fault = name, "a fault on purpose");
            return happen(fault);
        }
    }
    None
}

fn happen(fault: &str) -> Option<Fault> {
    match fault {
        // SAFETY: a signal to this process, which ends it.
        "kill" => drop(unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }),
        "exit" => std::process::exit(9),
        "panic" => panic!("a fault on purpose"),
        "hang" => loop {
            std::thread::sleep(SLOW);
        },
        "slow" => std::thread::sleep(SLOW),
        "abort" => return Some(Fault::Abort),
        _ => return Some(Fault::Nan),
    }
    None
}
