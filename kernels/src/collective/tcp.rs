//! A ring: every member writes to the next one and reads from the one before. It is not the ring all-reduce of the books, whose
//! order of sums follows the world, but a chain and a broadcast.
//!
//! Sums go from rank to rank in the order of their slices, and each rank adds what it has: what it passes on is the tree as far
//! as it is known, a few sums. From the last rank the total goes around. The bucket is cut into chunks, so that all links work at
//! the same time.
//!
//! The streams are the caller's, who has opened and authenticated them for this group alone, and who closes them to make every
//! member that waits on them give up: nothing in here knows of time.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::tree::{Node, decode, encode, values};
use super::{Bucket, Collective, Operation, Tree, elements, on_host};
use crate::{Error, Result, Tensor};

/// Elements that go together.
const CHUNK: usize = 64 * 1024;
/// Bytes in front of every frame: its number, what it is part of, and its length, little-endian u64.
const HEADER: usize = 24;

/// A member of a ring.
pub struct Ring {
    rank: usize,
    world: usize,
    /// To the thread that writes. It takes everything, which is one bucket or message at most for each call that has not
    /// returned at the neighbour: where all members waited for room there, nobody would read.
    to_next: Option<Sender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    from_previous: Box<dyn Read + Send>,
    sent: u64,
    received: u64,
}

impl Ring {
    /// A member of `world`, between the stream to the rank behind it and the one from the rank before it. A world of one
    /// needs neither and uses neither.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses a thread.
    pub fn new(
        rank: usize,
        world: usize,
        next: impl Write + Send + 'static,
        previous: impl Read + Send + 'static,
    ) -> Result<Self> {
        let (to_next, frames) = channel();
        let writer = std::thread::Builder::new()
            .name("ring".to_owned())
            .spawn(move || write_all(next, &frames))
            .map_err(|e| Error::Device(format!("cannot start a thread of the ring: {e}")))?;
        let (to_next, writer, from_previous) = (Some(to_next), Some(writer), Box::new(previous));
        Ok(Self { rank, world, to_next, writer, from_previous, sent: 0, received: 0 })
    }

    fn send(&mut self, operation: Operation, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend_from_slice(&self.sent.to_le_bytes());
        frame.extend_from_slice(&operation.word().to_le_bytes());
        frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        frame.extend_from_slice(payload);
        self.sent += 1;
        let gone = || Error::Gang(format!("the rank behind rank {} is gone", self.rank));
        self.to_next.as_ref().ok_or_else(gone)?.send(frame).map_err(|_| gone())
    }

    fn receive(&mut self, operation: Operation) -> Result<Vec<u8>> {
        let mut header = [0; HEADER];
        self.from_previous.read_exact(&mut header).map_err(|e| self.silent(&e))?;
        let [number, word, len] = [0, 8, 16].map(|at| u64::from_le_bytes(std::array::from_fn(|i| header[at + i])));
        if (number, word) != (self.received, operation.word()) {
            return Err(self.astray(&format!("does something else than {operation:?} in frame {}", self.received)));
        }
        self.received += 1;
        let mut bytes = Vec::new();
        // No room is made for a length that is only claimed.
        (&mut self.from_previous).take(len).read_to_end(&mut bytes).map_err(|e| self.silent(&e))?;
        if bytes.len() as u64 != len {
            return Err(self.silent(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }

    /// Passes on the sums of a chunk with what this rank adds; the last rank gets the total and sends it around.
    fn reduce(&mut self, nodes: &[Node], slices: usize, chunk: &Range<usize>, total: &mut [f32]) -> Result<()> {
        let (mut tree, operation) = (Tree::new(slices), Operation::AllReduce(slices));
        let before = if self.rank == 0 { Vec::new() } else { decode(&self.receive(operation)?, chunk.len())? };
        before.into_iter().try_for_each(|node| tree.push_node(node))?;
        nodes.iter().try_for_each(|node| tree.push_node(node.part(chunk.clone())?))?;
        if self.rank + 1 < self.world {
            return self.send(operation, &encode(tree.nodes())?);
        }
        total.copy_from_slice(&tree.total()?.to_flat()?);
        self.send(operation, &total.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Takes the total of a chunk and passes it on.
    fn take(&mut self, slices: usize, total: &mut [f32]) -> Result<()> {
        let operation = Operation::AllReduce(slices);
        let bytes = self.receive(operation)?;
        if bytes.len() != 4 * total.len() {
            let what = format!("sends {} elements where rank {} has {}", bytes.len() / 4, self.rank, total.len());
            return Err(self.astray(&what));
        }
        total.copy_from_slice(&values(&bytes));
        if self.rank + 2 < self.world { self.send(operation, &bytes) } else { Ok(()) }
    }

    fn previous(&self) -> usize {
        (self.rank + self.world - 1) % self.world
    }

    fn silent(&self, error: &std::io::Error) -> Error {
        Error::Gang(format!("rank {} is gone: {error}", self.previous()))
    }

    fn astray(&self, what: &str) -> Error {
        Error::Gang(format!("rank {} {what}", self.previous()))
    }
}

/// What was said is on its way before this member is gone, unless nobody takes it: then the caller's streams are closed, or
/// the system closes them.
impl Drop for Ring {
    fn drop(&mut self) {
        self.to_next = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it has panicked where the stream has
        }
    }
}

/// Writes frames until there are no more, or nobody takes them.
fn write_all(mut next: impl Write, frames: &Receiver<Vec<u8>>) {
    while let Ok(frame) = frames.recv() {
        if next.write_all(&frame).and_then(|()| next.flush()).is_err() {
            return;
        }
    }
}

impl Collective for Ring {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> Result<Bucket> {
        if self.world == 1 {
            return own.total();
        }
        let nodes = on_host(&own, elements(like))?;
        let mut total = vec![0.0; elements(like)];
        for (number, part) in total.chunks_mut(CHUNK).enumerate() {
            let start = number * CHUNK;
            self.reduce(&nodes, own.slices(), &(start..start + part.len()), part)?;
        }
        if self.rank + 1 < self.world {
            total.chunks_mut(CHUNK).try_for_each(|part| self.take(own.slices(), part))?;
        }
        Bucket::from_flat(&total, like)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let operation = Operation::Broadcast(root);
        if self.rank != root {
            *bytes = self.receive(operation)?;
        }
        if (self.rank + 1) % self.world != root {
            self.send(operation, bytes)?;
        }
        Ok(())
    }

    fn all_gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let mut all = vec![Vec::new(); self.world];
        let mut at_hand = self.rank;
        all[at_hand] = own;
        for _ in 1..self.world {
            let bytes = std::mem::take(&mut all[at_hand]);
            self.send(Operation::AllGather, &bytes)?;
            all[at_hand] = bytes;
            at_hand = (at_hand + self.world - 1) % self.world;
            all[at_hand] = self.receive(Operation::AllGather)?;
        }
        Ok(all)
    }
}
