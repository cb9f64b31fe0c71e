//! Device memory on the host, watched for what a card would not tell.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use super::super::Address;
use crate::{Error, Result};

/// Where buffers begin.
const ALIGNMENT: usize = 256;
/// What lies on either side of a buffer.
const RED_BYTES: usize = 4096;
/// What new memory holds; as floats of either size no numbers.
const POISON: u8 = 0xff;

/// What the red zones hold, by position: as floats of either size no numbers, nor what is new.
static RED: [u8; RED_BYTES + 1] = {
    let mut red = [0xfe; RED_BYTES + 1];
    let mut i = 1;
    while i < red.len() {
        red[i] = 0xff;
        i += 2;
    }
    red
};

/// The buffers of a device.
#[derive(Debug)]
pub(super) struct Memory {
    buffers: BTreeMap<u64, Buffer>,
    used: usize,
    budget: usize,
}

impl Memory {
    pub(super) fn new(budget: usize) -> Self {
        Self { buffers: BTreeMap::new(), used: 0, budget }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn free_bytes(&self) -> usize {
        self.budget - self.used
    }

    pub(super) fn allocate(&mut self, bytes: usize) -> Result<Address> {
        let free = self.free_bytes();
        let buffer = if bytes <= free { Buffer::new(bytes) } else { None };
        let buffer = buffer.ok_or(Error::Memory { asked: bytes, free, budget: self.budget })?;
        let address = buffer.address();
        self.used += bytes;
        self.buffers.insert(address, buffer);
        Ok(Address(address))
    }

    /// # Panics
    /// If no buffer begins there.
    pub(super) fn free(&mut self, address: Address) {
        let mut buffer =
            self.buffers.remove(&address.0).expect("what is given back was allocated, and is given back once");
        buffer.bytes_mut().fill(POISON);
        self.used -= buffer.len;
    }

    /// Whether an address points into a buffer or at its end.
    pub(super) fn holds(&self, address: Address) -> bool {
        self.find(address, 0).is_ok()
    }

    pub(super) fn bytes(&self, address: Address, len: usize) -> Result<&[u8]> {
        let (begin, at) = self.find(address, len)?;
        Ok(&self.buffers[&begin].bytes()[at..at + len])
    }

    pub(super) fn bytes_mut(&mut self, address: Address, len: usize) -> Result<&mut [u8]> {
        let (begin, at) = self.find(address, len)?;
        let buffer = self.buffers.get_mut(&begin).expect("the buffer was found");
        Ok(&mut buffer.bytes_mut()[at..at + len])
    }

    /// The buffer that holds so many bytes at an address, and where in it.
    fn find(&self, address: Address, len: usize) -> Result<(u64, usize)> {
        let outside = || Error::Device(format!("{len} bytes at {:#x} lie outside of every buffer", address.0));
        let (&begin, buffer) = self.buffers.range(..=address.0).next_back().ok_or_else(outside)?;
        let at = usize::try_from(address.0 - begin).map_err(|_| outside())?;
        if at > buffer.len || len > buffer.len - at { Err(outside()) } else { Ok((begin, at)) }
    }

    /// The content of all buffers.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.used);
        self.buffers.values().for_each(|b| all.extend_from_slice(b.bytes()));
        all
    }

    /// Puts a snapshot back; buffers are those that it was taken of.
    pub(super) fn restore(&mut self, snapshot: &[u8]) {
        let mut rest = snapshot;
        for buffer in self.buffers.values_mut() {
            let (content, behind) = rest.split_at(buffer.len);
            buffer.bytes_mut().copy_from_slice(content);
            rest = behind;
        }
    }

    /// Where a snapshot differs from what is there now, in words.
    pub(super) fn difference(&self, snapshot: &[u8]) -> Option<String> {
        let mut rest = snapshot;
        for buffer in self.buffers.values() {
            let (was, behind) = rest.split_at(buffer.len);
            let is = buffer.bytes();
            if was != is {
                let at = was.iter().zip(is).position(|(was, is)| was != is)?;
                let word = at / 4 * 4;
                let (was, is) = (&was[word..buffer.len.min(word + 4)], &is[word..buffer.len.min(word + 4)]);
                return Some(format!("byte {at} of a buffer of {} bytes, in {was:02x?} against {is:02x?}", buffer.len));
            }
            rest = behind;
        }
        None
    }

    /// Finds, and mends, what was written outside of a buffer.
    pub(super) fn damage(&mut self) -> Option<String> {
        self.buffers.values_mut().find_map(Buffer::damage)
    }
}

/// Memory between two red zones.
#[derive(Debug)]
struct Buffer {
    /// Where the first red zone begins.
    begin: NonNull<u8>,
    layout: Layout,
    len: usize,
}

// SAFETY: a buffer is the only owner of its memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// None if the host has no memory.
    fn new(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.checked_add(2 * RED_BYTES)?, ALIGNMENT).ok()?;
        // SAFETY: the red zones make the size more than nothing.
        let begin = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        // SAFETY: the memory was allocated with this size.
        unsafe { begin.write_bytes(POISON, layout.size()) };
        let mut buffer = Self { begin, layout, len };
        buffer.damage(); // mends the red zones
        Some(buffer)
    }

    /// Where the content begins, for kernels too.
    fn address(&self) -> u64 {
        self.begin.as_ptr().expose_provenance() as u64 + RED_BYTES as u64
    }

    fn all(&self) -> &[u8] {
        // SAFETY: the memory is allocated with this size and written; kernels run only while nobody holds a reference.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.layout.size()) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `all`; the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.begin.as_ptr(), self.layout.size()) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[RED_BYTES..][..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.all_mut()[RED_BYTES..][..len]
    }

    /// Says on which side of the buffer something was written, and mends it.
    fn damage(&mut self) -> Option<String> {
        let len = self.len;
        let (before, rest) = self.all_mut().split_at_mut(RED_BYTES);
        let behind = &mut rest[len..];
        let damaged = |zone: &[u8], red: &[u8]| {
            let differs = |i: &usize| zone[*i] != red[*i];
            if zone == red { None } else { Some((0..RED_BYTES).find(differs)?..=(0..RED_BYTES).rfind(differs)?) }
        };
        let red_behind = &RED[len % 2..][..RED_BYTES];
        let places = (damaged(before, &RED[..RED_BYTES]), damaged(behind, red_behind));
        before.copy_from_slice(&RED[..RED_BYTES]);
        behind.copy_from_slice(red_behind);
        match places {
            (Some(at), _) => {
                Some(format!("wrote {} bytes before the begin of a buffer of {len} bytes", RED_BYTES - at.end()))
            }
            (_, Some(at)) => Some(format!("wrote {} bytes behind the end of a buffer of {len} bytes", at.start())),
            (None, None) => None,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout.
        unsafe { std::alloc::dealloc(self.begin.as_ptr(), self.layout) };
    }
}
