//! The end of a communicator, from whichever thread it comes.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::api::{Api, Code, Handle};
use crate::cuda::RawStream;
use crate::{Error, Result};

/// What the library gets for an abort, which joins its threads.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the communicator of a member, from any thread and at any time: before it is there, while it comes to be, and while the
/// member waits in the middle of a sum. Whoever waits is told so and gives up; the communicator is of no use any more.
///
/// It is the member of one group alone. The streams of the ring that the group was opened over are to be closed besides: a
/// member may be waiting there.
#[derive(Clone, Default)]
pub struct Aborter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether the end was asked for; the communicator is never used behind that.
    asked: AtomicBool,
    /// What there is to end. Locked for as long as a call takes: none of them waits for other members.
    held: Mutex<Option<Held>>,
    /// How the end went, once it is there.
    ended: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

/// A communicator of the library.
pub(super) struct Held {
    pub(super) api: Arc<Api>,
    pub(super) handle: Handle,
    pub(super) stream: Arc<dyn RawStream>,
}

// SAFETY: the library lets any thread use a communicator, one at a time, which the lock sees to.
unsafe impl Send for Held {}

impl Held {
    /// The card's context is made that of this thread: the library would take one of another card else.
    fn abort(self) -> Result<(), String> {
        self.stream.enter().map_err(|e| e.to_string())?;
        // SAFETY: the communicator was taken out from where everybody finds it, so this is the last call.
        match unsafe { (self.api.abort)(self.handle) } {
            Code::SUCCESS | Code::IN_PROGRESS => Ok(()),
            code => Err(self.api.words(code)),
        }
    }
}

impl Aborter {
    /// For a communicator that is to be opened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the end was asked for, by [`Aborter::abort`] or by a member that failed.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.shared.asked.load(Ordering::Acquire)
    }

    /// Asks for the end, and waits for it. The library hears of it once, however often and from wherever it is asked for.
    ///
    /// # Errors
    /// [`Error::Stuck`] if the library does not return within 5 s: the card is free again with the end of this process, and
    /// not before. [`Error::Gang`] if the library fails.
    pub fn abort(&self) -> Result<()> {
        if !self.shared.asked.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            // The library may hang, and so may a call that has the lock: that is to be told, and not to be waited for.
            let spawned = std::thread::Builder::new().name("abort".to_owned()).spawn(move || shared.end());
            if let Err(e) = spawned {
                self.shared.note(Err(format!("cannot start a thread: {e}")));
            }
        }
        self.wait()
    }

    /// Waits for an end that was asked for.
    fn wait(&self) -> Result<()> {
        let ended = lock(&self.shared.ended);
        let waited = self.shared.changed.wait_timeout_while(ended, PATIENCE, |ended| ended.is_none());
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*ended {
            Some(Ok(())) => Ok(()),
            Some(Err(said)) => Err(Error::Gang(format!("the communicator of NCCL could not be aborted: {said}"))),
            None => Err(Error::Stuck(format!(
                "NCCL did not abort its communicator within {} s: the card is free again with the end of this process",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// Refuses to go on where the end was asked for. It waits for the end first: what the library reads and writes may
    /// be given back afterwards.
    pub(super) fn refuse_if_asked(&self) -> Result<()> {
        if !self.is_aborted() {
            return Ok(());
        }
        self.wait()?;
        Err(Error::Gang("the communicator of NCCL was aborted".to_owned()))
    }

    /// Does something with the communicator, or says that it is no more.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Held) -> T) -> Result<T> {
        self.refuse_if_asked()?;
        let held = lock(&self.shared.held);
        let done = held.as_ref().map(work);
        drop(held);
        done.ok_or_else(|| self.refuse_if_asked().err().unwrap_or_else(closed))
    }

    /// Makes the communicator, if nobody has asked for its end before.
    pub(super) fn begin(
        &self,
        api: &Arc<Api>,
        stream: &Arc<dyn RawStream>,
        init: impl FnOnce(*mut Handle) -> Code,
    ) -> Result<Code> {
        let mut held = lock(&self.shared.held);
        // Whoever asks from here on gets the lock later, and finds what is made.
        if self.is_aborted() {
            drop(held);
            return Err(self.refuse_if_asked().err().unwrap_or_else(closed));
        }
        let mut handle = ptr::null_mut();
        let code = init(&raw mut handle);
        if !handle.is_null() {
            *held = Some(Held { api: Arc::clone(api), handle, stream: Arc::clone(stream) });
        }
        Ok(code)
    }

    /// Takes the communicator out for a last call that is no abort; nothing if its end was asked for.
    pub(super) fn take(&self) -> Option<Held> {
        lock(&self.shared.held).take()
    }
}

impl Shared {
    fn end(&self) {
        let held = lock(&self.held).take();
        self.note(held.map_or(Ok(()), Held::abort));
    }

    fn note(&self, end: Result<(), String>) {
        *lock(&self.ended) = Some(end);
        self.changed.notify_all();
    }
}

fn closed() -> Error {
    Error::Gang("the communicator of NCCL is closed".to_owned())
}

/// What lies behind the locks is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
