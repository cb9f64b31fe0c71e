//! One child, as the parent sees it.

use std::io::{BufReader, BufWriter, ErrorKind};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::frames::{self, Answer};
use super::{DecoderCommand, DecoderLimits, DecodersError, Refusal, Request, Thumb};

/// How long a child may take to say that it is one: programs start slowly on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running child. Dropping it ends the child and collects it.
pub(crate) struct Process {
    /// `None` only while dropping.
    pipes: Option<Pipes>,
    watch: Arc<Watch>,
    watcher: Option<JoinHandle<()>>,
}

struct Pipes {
    stdin: BufWriter<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a child and waits until it says that it is ready.
    pub(crate) fn start(command: &DecoderCommand, limits: &DecoderLimits) -> Result<Self, DecodersError> {
        let failed = |source| DecodersError::Start { program: command.name(), source };
        let mut child = Command::new(&command.program)
            .args(&command.args)
            // Nothing in it is for decoders, and the keys of stores may be.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Nobody reads it, so it must not fill up.
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pipes = pipes.map(|(i, o)| Pipes { stdin: BufWriter::new(i), stdout: BufReader::new(o) });
        let watch = Arc::new(Watch::new(child));
        let watcher = std::thread::Builder::new().name("decoder-watch".to_owned()).spawn({
            let watch = Arc::clone(&watch);
            move || watch.run()
        });
        // Made before the thread is looked at, so that the child is collected if there is none.
        let mut process = Self { pipes, watch, watcher: None };
        process.watcher = Some(watcher.map_err(failed)?);
        let reason = match process.within(START, |pipes| {
            frames::write_hello(&mut pipes.stdin, limits.memory_bytes)?;
            frames::read_answer(&mut pipes.stdout, 0)
        }) {
            Ok(Answer::Ready) => return Ok(process),
            Ok(Answer::Picture(_)) => "it answered before it was asked".to_owned(),
            Err(fault) => process.describe(&fault),
        };
        Err(DecodersError::NotADecoder { program: command.name(), reason })
    }

    /// False if the child has ended.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.watch.lock().child.try_wait(), Ok(None))
    }

    /// Has one picture decoded.
    ///
    /// # Errors
    /// The refusal, where the child is of no more use.
    pub(crate) fn ask(&mut self, request: &Request, time: Duration) -> Result<Result<Thumb, Refusal>, Refusal> {
        let answer = self.within(time, |pipes| {
            frames::write_request(&mut pipes.stdin, request)?;
            frames::read_answer(&mut pipes.stdout, request.look.side)
        });
        match answer {
            Ok(Answer::Picture(answer)) => Ok(answer),
            Ok(Answer::Ready) => Err(died("it answered something else".to_owned())),
            Err(Fault::Late) => {
                let sentence = format!("the decoder took longer than {time:?} and was ended");
                Err(Refusal::undecodable("timeout", sentence))
            }
            Err(fault) => Err(died(self.describe(&fault))),
        }
    }

    /// Talks to the child; after `time` it is killed, which ends every read and write.
    fn within<T>(&mut self, time: Duration, talk: impl FnOnce(&mut Pipes) -> std::io::Result<T>) -> Result<T, Fault> {
        let pipes = self.pipes.as_mut().ok_or(Fault::Pipe(ErrorKind::BrokenPipe.into()))?;
        self.watch.arm(time);
        let said = talk(pipes);
        let late = self.watch.disarm();
        said.map_err(|e| if late { Fault::Late } else { Fault::Pipe(e) })
    }

    /// What happened to a child that does not talk any more.
    fn describe(&self, fault: &Fault) -> String {
        match fault {
            Fault::Late => "no answer in time".to_owned(),
            Fault::Pipe(e) if e.kind() == ErrorKind::InvalidData => format!("it sent {e}"),
            Fault::Pipe(_) => self.watch.end().map_or_else(|e| e.to_string(), how),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What is still in the buffer is of no use to a child that ends.
        if let Some(Pipes { stdin, .. }) = self.pipes.take() {
            drop(stdin.into_parts());
        }
        self.watch.finish();
        if let Some(watcher) = self.watcher.take() {
            // It only waits and kills.
            let _ = watcher.join();
        }
    }
}

enum Fault {
    Late,
    Pipe(std::io::Error),
}

/// The child and the time by which it has to be done.
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    child: Child,
    deadline: Option<Instant>,
    /// The deadline passed and the child was killed for it.
    late: bool,
    finished: bool,
}

impl Watch {
    fn new(child: Child) -> Self {
        let state = State { child, deadline: None, late: false, finished: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self, time: Duration) {
        self.lock().deadline = Some(Instant::now() + time);
        self.changed.notify_all();
    }

    /// True if the child was killed.
    fn disarm(&self) -> bool {
        let mut state = self.lock();
        state.deadline = None;
        state.late
    }

    /// Kills the child when a deadline passes; returns when there is nothing left to watch.
    fn run(&self) {
        let mut state = self.lock();
        while !state.finished {
            let now = Instant::now();
            let left = state.deadline.map(|deadline| deadline.saturating_duration_since(now));
            state = match left {
                Some(Duration::ZERO) => {
                    state.late = true;
                    state.deadline = None;
                    // It fails only for a child that has ended.
                    let _ = state.child.kill();
                    state
                }
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits for a child whose pipes are closed; one that lives on without them is killed.
    fn end(&self) -> std::io::Result<ExitStatus> {
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            let mut state = self.lock();
            if let Some(status) = state.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > patience {
                state.child.kill()?;
                return state.child.wait();
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the child, collects it, and lets the watcher go.
    fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        // Both fail only for a child that has been collected.
        let _ = state.child.kill();
        let _ = state.child.wait();
        self.changed.notify_all();
    }
}

fn died(how: String) -> Refusal {
    Refusal::undecodable("decoder_died", format!("the decoder died over this picture ({how})"))
}

/// How a child ended.
fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "unknown".to_owned(), |code| format!("exit code {code}"))
}
