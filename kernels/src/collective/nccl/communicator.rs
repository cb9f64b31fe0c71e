//! A communicator that never blocks: every call returns at once, and how it went is asked for until that is known or somebody
//! asks for the end.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::aborter::{Aborter, Held};
use super::api::{Api, Code, Config, FLOAT, RawHandle, UniqueId};
use super::trouble;
use crate::cuda::{Address, RawStream};
use crate::{Error, Result};

/// Turns in which the thread only steps aside, before it sleeps.
const BUSY_TURNS: u32 = 200;
/// How long it sleeps then: little against what a group of calls costs on a card.
const PAUSE: Duration = Duration::from_micros(50);
/// What a healthy communicator gets to finish before it is aborted.
const PATIENCE: Duration = Duration::from_secs(5);

/// A transfer of floats between members, on the stream of the device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transfer {
    Send {
        from: Address,
        elements: usize,
        to: usize,
    },
    Receive {
        to: Address,
        elements: usize,
        from: usize,
    },
    /// What the root has there, everybody has there afterwards.
    Broadcast {
        at: Address,
        elements: usize,
        root: usize,
    },
    /// So many elements of every rank, one rank after the other.
    AllGather {
        from: Address,
        to: Address,
        elements: usize,
    },
}

/// A member's communicator. It is aborted with its first error, and finished in order when it is dropped without one.
pub(super) struct Communicator {
    api: Arc<Api>,
    stream: Arc<dyn RawStream>,
    aborter: Aborter,
    /// What may be the reason of a failure on this machine.
    remarks: Vec<String>,
}

impl Communicator {
    /// Meets the other members at a place that one of them has made. It waits for all of them.
    pub(super) fn open(
        api: Arc<Api>,
        stream: Arc<dyn RawStream>,
        aborter: Aborter,
        (rank, world): (usize, usize),
        id: UniqueId,
        remarks: Vec<String>,
    ) -> Result<Self> {
        stream.enter()?;
        let [rank, world] = [number(rank)?, number(world)?];
        let mut config = Config::non_blocking();
        // SAFETY: the context of the card is that of this thread, which is how the library knows the card; the
        // configuration is copied before the call returns.
        let code =
            aborter.begin(&api, &stream, |handle| unsafe { (api.init)(handle, world, id, rank, &raw mut config) })?;
        let this = Self { api, stream, aborter, remarks };
        this.finish("joining the group", code)?;
        Ok(this)
    }

    /// Puts transfers on the stream that go on at the same time. Behind them the stream goes on in its order, so memory that
    /// is given back in that order outlives them.
    ///
    /// # Safety
    /// The memory is that of the stream's device, of so many elements.
    pub(super) unsafe fn group(&self, transfers: &[Transfer]) -> Result<()> {
        if transfers.is_empty() {
            return Ok(());
        }
        let stream = self.stream.enter()?;
        let code = self.aborter.with(|held| {
            // SAFETY: groups belong to a thread, and one that is begun is ended.
            unsafe {
                let begun = (self.api.group_start)();
                // SAFETY: the caller's promise.
                let asked = transfers.iter().map(|transfer| ask(held, transfer, stream));
                let refused = asked.collect::<Vec<_>>().into_iter().find(|code| !is_on_its_way(*code));
                let ended = (self.api.group_end)();
                if is_on_its_way(begun) { refused.unwrap_or(ended) } else { begun }
            }
        })?;
        self.finish("a transfer", code)
    }

    /// Waits until the stream is through with all that it was asked for.
    pub(super) fn wait(&self) -> Result<()> {
        self.until(|| Ok(self.is_settled("a transfer")? && self.stream.is_idle()?))
    }

    /// Whether the last call is through, by its code and then by what the library says.
    fn finish(&self, what: &str, code: Code) -> Result<()> {
        match code {
            Code::SUCCESS => Ok(()),
            Code::IN_PROGRESS => self.until(|| self.is_settled(what)),
            code => Err(self.fail(what, code)),
        }
    }

    fn is_settled(&self, what: &str) -> Result<bool> {
        let code = self.aborter.with(|held| {
            let mut code = Code::SUCCESS;
            // SAFETY: the communicator is held.
            match unsafe { (held.api.async_error)(held.handle, &raw mut code) } {
                Code::SUCCESS => code,
                failed => failed,
            }
        })?;
        match code {
            Code::SUCCESS => Ok(true),
            Code::IN_PROGRESS => Ok(false),
            code => Err(self.fail(what, code)),
        }
    }

    /// Asks again and again, until it is so or somebody asks for the end.
    fn until(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        for turn in 0_u32.. {
            self.aborter.refuse_if_asked()?;
            if done()? {
                return Ok(());
            }
            if turn < BUSY_TURNS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// What a code means. The communicator is aborted: after an error there is nothing else to do with it.
    fn fail(&self, what: &str, code: Code) -> Error {
        let said = trouble::explain(what, code, &self.api.words(code), &self.remarks);
        self.abort().err().filter(Error::is_stuck).unwrap_or(Error::Gang(said))
    }

    /// Ends it at once, whatever is under way.
    pub(super) fn abort(&self) -> Result<()> {
        self.aborter.abort()
    }

    pub(super) fn aborter(&self) -> &Aborter {
        &self.aborter
    }

    pub(super) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Ends it in order: what is under way gets through.
    fn close(&self) -> Result<()> {
        self.stream.enter()?;
        // SAFETY: the communicator is held, and this is the first and only time.
        let code = self.aborter.with(|held| unsafe { (held.api.finalize)(held.handle) })?;
        let begun = Instant::now();
        let too_late = || Error::Gang("NCCL does not come to its end".to_owned());
        if code == Code::IN_PROGRESS {
            self.until(|| match self.is_settled("the end of the group")? {
                false if begun.elapsed() > PATIENCE => Err(too_late()),
                settled => Ok(settled),
            })?;
        } else {
            self.finish("the end of the group", code)?;
        }
        if let Some(held) = self.aborter.take() {
            // SAFETY: the communicator was taken out from where everybody finds it, and is finalized.
            unsafe { (held.api.destroy)(held.handle) };
        }
        Ok(())
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.aborter.is_aborted() || self.close().is_err() {
            // One that hangs was told of to whoever asked for it first, or is found by whoever asks again.
            let _ = self.abort();
        }
    }
}

fn is_on_its_way(code: Code) -> bool {
    matches!(code, Code::SUCCESS | Code::IN_PROGRESS)
}

/// # Safety
/// As [`Communicator::group`], within a group of this thread.
unsafe fn ask(held: &Held, transfer: &Transfer, stream: RawHandle) -> Code {
    let Held { api, handle, .. } = held;
    // Ranks were numbers of the library when the group was joined.
    let rank = |rank: usize| number(rank).unwrap_or(c_int::MAX);
    // SAFETY: that of this function.
    unsafe {
        match *transfer {
            Transfer::Send { from, elements, to } => {
                (api.send)(pointer(from), elements, FLOAT, rank(to), *handle, stream)
            }
            Transfer::Receive { to, elements, from } => {
                (api.receive)(pointer(to), elements, FLOAT, rank(from), *handle, stream)
            }
            Transfer::Broadcast { at, elements, root } => {
                (api.broadcast)(pointer(at), pointer(at), elements, FLOAT, rank(root), *handle, stream)
            }
            Transfer::AllGather { from, to, elements } => {
                (api.all_gather)(pointer(from), pointer(to), elements, FLOAT, *handle, stream)
            }
        }
    }
}

fn pointer(address: Address) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address.0 as usize)
}

fn number(n: usize) -> Result<c_int> {
    c_int::try_from(n).map_err(|_| Error::Gang(format!("{n} members are more than NCCL can count")))
}
