//! Memory that is used again.
//!
//! A training step needs the same megabytes as the step before it. Given back to the operating system and asked for anew,
//! they cost a page fault for every 4 KiB: a fifth of a retriever's step was spent on that. So buffers that are dropped
//! are kept on a shelf for those to come.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller buffers are left to the allocator, which keeps them itself.
const SMALLEST_BYTES: usize = 32 * 1024;
/// What a processor reads at a time.
const LINE_BYTES: usize = 64;
/// The most that one shelf keeps.
const KEPT_BYTES: usize = 512 << 20;

/// Buffers of one element type that nobody uses, by their length.
pub(crate) struct Shelf<T> {
    free: Mutex<Free<T>>,
}

struct Free<T> {
    by_length: BTreeMap<usize, Vec<Kept<T>>>,
    bytes: usize,
    /// Counts what was put here.
    puts: u64,
}

/// A buffer, and when it came.
struct Kept<T> {
    buffer: Vec<T>,
    put: u64,
}

impl<T> Free<T> {
    /// Takes the buffer that came last of some length.
    fn remove(&mut self, length: usize) -> Option<Vec<T>> {
        let kept = self.by_length.get_mut(&length)?;
        let buffer = kept.pop().map(|k| k.buffer);
        self.taken(length, buffer)
    }

    /// Takes the buffer that nobody has asked for the longest.
    fn remove_oldest(&mut self) -> Option<Vec<T>> {
        // Of one length the first came first.
        let (&length, _) = self.by_length.iter().min_by_key(|(_, kept)| kept.first().map_or(u64::MAX, |k| k.put))?;
        let buffer = self.by_length.get_mut(&length).map(|kept| kept.remove(0).buffer);
        self.taken(length, buffer)
    }

    fn taken(&mut self, length: usize, buffer: Option<Vec<T>>) -> Option<Vec<T>> {
        if self.by_length.get(&length).is_some_and(Vec::is_empty) {
            self.by_length.remove(&length);
        }
        self.bytes -= buffer.as_ref().map_or(0, bytes);
        buffer
    }
}

/// The memory of a buffer.
fn bytes<T>(buffer: &Vec<T>) -> usize {
    buffer.capacity() * size_of::<T>()
}

/// An element type that has a shelf.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// The shelf, one for the process.
    fn shelf() -> &'static Shelf<Self>;
}

/// Gives every type a shelf of its own.
macro_rules! shelves {
    ($($ty:ty)+) => {$(
        impl Element for $ty {
            fn shelf() -> &'static Shelf<Self> {
                static SHELF: Shelf<$ty> = Shelf::new();
                &SHELF
            }
        }
    )+};
}
pub(crate) use shelves;
shelves!(f32 half::bf16 half::f16);

impl<T: Element> Shelf<T> {
    pub(crate) const fn new() -> Self {
        Self { free: Mutex::new(Free { by_length: BTreeMap::new(), bytes: 0, puts: 0 }) }
    }

    /// A buffer of at least `len` elements and not much more, holding whatever it held.
    fn take(&self, len: usize) -> Option<Vec<T>> {
        let mut free = self.lock();
        let (&found, _) = free.by_length.range(len..=len + len / 4).next()?;
        free.remove(found)
    }

    /// Keeps a buffer, in place of those that nobody has asked for the longest if there are too many.
    fn put(&self, buffer: Vec<T>) {
        let mut gone = Vec::new(); // given back behind the lock
        let mut free = self.lock();
        free.bytes += bytes(&buffer);
        free.puts += 1;
        let kept = Kept { put: free.puts, buffer };
        free.by_length.entry(kept.buffer.len()).or_default().push(kept);
        while free.bytes > KEPT_BYTES {
            gone.extend(free.remove_oldest());
        }
        drop(free);
    }

    /// Nothing that can panic happens under the lock, and a shelf is whole at any moment.
    fn lock(&self) -> MutexGuard<'_, Free<T>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back to its shelf when it is dropped.
///
/// Its elements begin with a cache line, so that vectors read from it cross none; but not those of a buffer that was
/// made elsewhere.
pub(crate) struct Memory<T: Element> {
    buffer: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Element> Memory<T> {
    /// No elements.
    pub(crate) const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, len: 0 }
    }

    /// The elements behind the first cache line that begins in a buffer.
    fn aligned(buffer: Vec<T>, len: usize) -> Self {
        let start = buffer.as_ptr().align_offset(LINE_BYTES).min(buffer.len() - len);
        Self { buffer, start, len }
    }

    /// A buffer whose elements are whatever an earlier one left: for what is written before it is read.
    pub(crate) fn dirty(len: usize) -> Self {
        let room = room::<T>(len);
        let buffer = if room * size_of::<T>() < SMALLEST_BYTES { None } else { T::shelf().take(len + slack::<T>()) };
        Self::aligned(buffer.unwrap_or_else(|| vec![T::default(); room]), len)
    }

    /// A buffer of zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let room = room::<T>(len);
        let taken = if room * size_of::<T>() < SMALLEST_BYTES { None } else { T::shelf().take(len + slack::<T>()) };
        if let Some(buffer) = taken {
            let mut memory = Self::aligned(buffer, len);
            memory.fill(T::default());
            return memory;
        }
        Self::aligned(vec![T::default(); room], len)
    }

    /// Another length; what the elements are then is not said.
    pub(crate) fn resize_dirty(&mut self, len: usize) {
        if len <= self.buffer.len() - self.start {
            self.len = len;
        } else {
            *self = Self::dirty(len);
        }
    }
}

/// The length of a new buffer: a few sizes serve batches that differ a little.
fn room<T>(len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let len = len + slack::<T>();
    if len * size_of::<T>() < SMALLEST_BYTES { len } else { len.next_multiple_of(len.next_power_of_two() / 16) }
}

/// Elements that may lie before the first cache line of a buffer; none of those that are aligned in any case.
const fn slack<T>() -> usize {
    if align_of::<T>() < LINE_BYTES { LINE_BYTES / size_of::<T>() } else { 0 }
}

impl<T: Element> From<Vec<T>> for Memory<T> {
    fn from(buffer: Vec<T>) -> Self {
        Self { start: 0, len: buffer.len(), buffer }
    }
}

impl<T: Element> Drop for Memory<T> {
    fn drop(&mut self) {
        if size_of_val(self.buffer.as_slice()) >= SMALLEST_BYTES {
            T::shelf().put(std::mem::take(&mut self.buffer));
        }
    }
}

impl<T: Element> Clone for Memory<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::dirty(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Default for Memory<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Element> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[self.start..][..self.len]
    }
}

impl<T: Element> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..][..self.len]
    }
}

impl<T: Element + PartialEq> PartialEq for Memory<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Nobody else takes from this shelf.
    shelves!(u16);

    #[test]
    fn a_dropped_buffer_serves_again() {
        let mut first = Memory::<u16>::zeros(1_000_003);
        first.fill(7);
        let place = first.as_ptr();
        drop(first);
        let again = Memory::<u16>::dirty(1_000_001);
        assert_eq!((again.as_ptr(), again.len(), again[0]), (place, 1_000_001, 7));
        drop(again);
        let clean = Memory::<u16>::zeros(1_000_002);
        assert_eq!(clean.as_ptr(), place);
        assert!(clean.iter().all(|&v| v == 0));
        assert_ne!(Memory::<u16>::dirty(500_000).as_ptr(), place, "twice as much as is needed is not taken");
    }

    #[test]
    fn a_full_shelf_gives_back_what_came_first() {
        static SHELF: Shelf<u16> = Shelf::new();
        let quarter = KEPT_BYTES / size_of::<u16>() / 4;
        for i in 0..6 {
            SHELF.put(vec![0; quarter + i]);
        }
        let kept: Vec<usize> = SHELF.lock().by_length.keys().copied().collect();
        assert_eq!(kept, [quarter + 3, quarter + 4, quarter + 5]);
        assert!(SHELF.lock().bytes <= KEPT_BYTES);
    }

    #[test]
    fn small_and_empty_buffers_are_left_to_the_allocator() {
        assert!(Memory::<f32>::zeros(0).is_empty());
        assert_eq!(*Memory::<f32>::from(vec![1.0, 2.0]).clone(), [1.0, 2.0]);
        for len in [1, 31, 100_003] {
            let memory = Memory::<f32>::dirty(len);
            assert_eq!((memory.as_ptr().align_offset(LINE_BYTES), memory.len()), (0, len));
        }
        let mut grown = Memory::<f32>::new();
        grown.resize_dirty(5);
        assert_eq!(grown.len(), 5);
    }
}
