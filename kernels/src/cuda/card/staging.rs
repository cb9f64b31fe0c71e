//! Pinned memory through which numbers of the host pass to the card.
//!
//! The card copies from pinned memory by itself, when its stream has come so far, so that whoever uploads goes on at once. The
//! memory is a ring of slots. Copies fill a slot one after the other; whoever comes back to a slot waits until the card has
//! read all that it held, three slots of copies ago.

use std::ptr::NonNull;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::cuda::Address;

/// Bytes of a slot: larger copies go through several.
const SLOT_BYTES: usize = 2 << 20;
const SLOTS: usize = 4;
/// Where copies begin.
const ALIGNMENT: usize = 64;

pub(super) struct Staging {
    memory: NonNull<u8>,
    /// Reached when the card has read a slot.
    events: [sys::CUevent; SLOTS],
    slot: usize,
    /// Bytes of the slot that are filled.
    used: usize,
}

// SAFETY: the memory and the events are this one's alone, and any thread may use them.
unsafe impl Send for Staging {}

impl Staging {
    /// In the context of this thread.
    pub(super) fn new() -> Result<Self, DriverError> {
        let mut events = [std::ptr::null_mut(); SLOTS];
        for event in &mut events {
            *event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        }
        // SAFETY: the memory is written before it is read.
        let memory = unsafe { result::malloc_host(SLOTS * SLOT_BYTES, 0)? };
        let memory = NonNull::new(memory.cast()).ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        Ok(Self { memory, events, slot: 0, used: 0 })
    }

    /// Copies to the card in the order of a stream, which is the same every time. The values may change at once.
    ///
    /// # Safety
    /// The stream is alive, of the context of this thread, and there is room at the address.
    pub(super) unsafe fn send(&mut self, to: Address, values: &[u8], stream: sys::CUstream) -> Result<(), DriverError> {
        for (i, part) in values.chunks(SLOT_BYTES).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let place = self.place(part.len(), stream)?;
                place.copy_from_slice(part);
                result::memcpy_htod_async(to.offset(i * SLOT_BYTES).0, place, stream)?;
            }
        }
        Ok(())
    }

    /// Memory that the card reads no longer.
    ///
    /// # Safety
    /// As [`Staging::send`].
    unsafe fn place(&mut self, bytes: usize, stream: sys::CUstream) -> Result<&mut [u8], DriverError> {
        if self.used + bytes > SLOT_BYTES {
            // SAFETY: the caller's promise of the stream; the events are this one's. One that was never recorded is reached.
            unsafe { result::event::record(self.events[self.slot], stream)? };
            let next = (self.slot + 1) % SLOTS;
            // SAFETY: as above.
            unsafe { result::event::synchronize(self.events[next])? };
            (self.slot, self.used) = (next, 0);
        }
        let begin = self.slot * SLOT_BYTES + self.used;
        self.used += bytes.next_multiple_of(ALIGNMENT);
        // SAFETY: the slot has room for it, and what the card may still read of the memory lies before it or in other slots.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.add(begin).as_ptr(), bytes) })
    }
}

/// In the context that it was made in, when the card reads it no longer.
impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: both are this one's; a context that is lost has lost them too.
        unsafe {
            for event in self.events {
                let _ = result::event::destroy(event);
            }
            let _ = result::free_host(self.memory.as_ptr().cast());
        }
    }
}
