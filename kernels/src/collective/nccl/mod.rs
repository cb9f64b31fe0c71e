//! Members with cards: buckets travel over NCCL from card to card and never through the host.
//!
//! NCCL is opened over another group, such as a [ring](super::tcp): there the members tell each other their versions and where
//! they meet, there go small words and states, and there they agree on every sum before it begins. So nobody enters NCCL
//! for a sum that another member has no part in: NCCL itself would wait for ever.
//!
//! # Order of sums
//! That of every other group. NCCL's own sums are not used: their order follows the world. Instead nodes of the tree are sent, and
//! added by the kernels of this crate, in one of two ways:
//!
//! - a *chain* from rank to rank in pieces, then a broadcast from its end: for `n` pieces and a world of `w` that is `n + w` groups
//!   of calls, and a link carries what is open there, and the total;
//! - a *gather*: one call, after which everybody has all nodes and adds them. A link carries the nodes of `w - 1` ranks.
//!
//! A group of calls that does not block costs some 50 µs (it starts a thread within NCCL), and a link of 20 GB/s carries 1 MiB
//! meanwhile. The chain pays `w` such groups at least, the gather `w - 1` times what a rank brings: so a gather is better where a
//! rank brings no more than 1 MiB. These figures are estimates; nobody has measured them.
//!
//! # Ends
//! Everything that waits asks again and again, and an [`Aborter`] ends it from any other thread. After an error the
//! communicator is aborted, never destroyed; a new group gets a new one. Nothing in here knows when it is time to give up.
//!
//! # Never run on several cards
//! It was proven with an NCCL of our own making, between emulated devices. `tests/card.rs` is for one card.

mod aborter;
mod api;
mod communicator;
mod greeting;
mod pieces;
mod proof;
mod sum;
#[cfg(test)]
mod tests;
mod trouble;

use std::fmt;
use std::sync::Arc;

pub use self::aborter::Aborter;
use self::api::{Api, UniqueId};
use self::communicator::Communicator;
use self::greeting::Greeting;
pub(crate) use self::proof::check;
use self::sum::{Own, Sum, open_nodes};
use super::{Bucket, Collective, Operation, Tree, elements, slices_of};
use crate::cuda::{RawStream, Stream};
use crate::{Device, Error, Result, Tensor};

const OP: &str = "collective::nccl";
/// Elements of a piece of the chain, 2 MiB: what a group of calls costs is little against the time of a piece on a link, and the
/// adapter of a large model still has enough pieces for all links to work.
const PIECE: usize = 512 * 1024;
/// Bytes that a rank may bring to a gather.
const MOST_GATHERED_BYTES: usize = 1 << 20;

/// The way a bucket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Chain,
    Gather,
}

/// A member with a card.
pub struct Nccl {
    /// Ends before the stream does.
    communicator: Communicator,
    on: Stream,
    ring: Box<dyn Collective>,
    /// Elements of a piece.
    piece: usize,
    most_gathered_bytes: usize,
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl")
            .field("rank", &self.ring.rank())
            .field("world", &self.ring.world())
            .finish_non_exhaustive()
    }
}

impl Nccl {
    /// Opens NCCL between the cards of all members of a group, who all call this at the same time.
    ///
    /// # Errors
    /// As [`Nccl::open_with`].
    pub fn open(ring: Box<dyn Collective>, device: &Device) -> Result<Self> {
        Self::open_with(ring, device, &Aborter::new())
    }

    /// [`Nccl::open`] that can be ended while it waits for the other members.
    ///
    /// # Errors
    /// [`Error::Gang`] if a member cannot join (every member is told who, and why), if the versions of NCCL do not go together,
    /// if a member cannot be reached, or if the end was asked for.
    pub fn open_with(ring: Box<dyn Collective>, device: &Device, aborter: &Aborter) -> Result<Self> {
        let stream = device.stream().and_then(|on| Some((on.clone(), on.raw()?)));
        let api = match &stream {
            Some(_) => Api::installed().map(Arc::new),
            None => Err(format!("NCCL joins cards, and {} is none", device.name())),
        };
        Self::join(ring, api, stream, aborter)
    }

    /// Joins with a library, or tells the others why that is not possible.
    fn join(
        mut ring: Box<dyn Collective>,
        api: Result<Arc<Api>, String>,
        stream: Option<(Stream, Arc<dyn RawStream>)>,
        aborter: &Aborter,
    ) -> Result<Self> {
        let greeting = Greeting::of(api.as_deref().map_err(String::as_str));
        let remarks = greeting.exchange(&mut *ring)?;
        let api = api.map_err(Error::Gang)?;
        let (on, raw) = stream.ok_or_else(|| Error::Gang("NCCL needs a card".to_owned()))?;
        let id = share_id(&mut *ring, &api)?;
        let place = (ring.rank(), ring.world());
        let communicator = Communicator::open(api, raw, aborter.clone(), place, id, remarks)?;
        Ok(Self { communicator, on, ring, piece: PIECE, most_gathered_bytes: MOST_GATHERED_BYTES })
    }

    /// Whether a device is a card, and the library there: what [`Nccl::open`] needs of every member.
    #[must_use]
    pub fn possible(device: &Device) -> bool {
        device.stream().is_some_and(|on| on.raw().is_some()) && Api::installed().is_ok()
    }

    /// What ends this member from another thread.
    #[must_use]
    pub fn aborter(&self) -> Aborter {
        self.communicator.aborter().clone()
    }

    /// What was noticed when the members met, for the log: drivers that differ, little shared memory.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        self.communicator.remarks()
    }

    /// The better way for a bucket of so many elements.
    fn way(&self, slices: usize, elements: usize) -> Result<Way> {
        let of = |rank| open_nodes(slices, slices_of(rank, self.world(), slices)).map(|nodes| nodes.len());
        let most = (0..self.world()).map(of).try_fold(0, |most, nodes| nodes.map(|nodes| most.max(nodes)))?;
        let brought = most.saturating_mul(elements).saturating_mul(size_of::<f32>());
        Ok(if brought <= self.most_gathered_bytes { Way::Gather } else { Way::Chain })
    }

    /// Sums in a given way, if everybody can and does the same.
    fn reduce(&mut self, own: Tree, like: &[&Tensor], way: Way) -> Result<Bucket> {
        let (slices, elements) = (own.slices(), elements(like));
        let lengths = match way {
            Way::Chain => pieces::lengths(elements, self.piece),
            Way::Gather => pieces::lengths(elements, elements.max(1)),
        };
        let packed = self.pack(own, like, elements, &lengths);
        let agreed = self.agree(Operation::AllReduce(slices), elements, way, packed.is_ok());
        let own = packed?;
        agreed?;
        let sum = Sum {
            communicator: &self.communicator,
            on: &self.on,
            rank: self.ring.rank(),
            world: self.ring.world(),
            slices,
        };
        let total = match way {
            _ if elements == 0 => Vec::new(),
            Way::Chain => sum.chain(own, &lengths)?,
            Way::Gather => sum.gather(&own, elements)?,
        };
        let total = pieces::unpack(&self.on, &total, like)?;
        self.on.flush()?;
        self.communicator.wait()?;
        Ok(total)
    }

    /// The nodes of this rank in pieces, if they are those that the others expect.
    fn pack(&self, own: Tree, like: &[&Tensor], elements: usize, lengths: &[usize]) -> Result<Vec<Own>> {
        let (rank, world, slices) = (self.rank(), self.world(), own.slices());
        let expected = open_nodes(slices, slices_of(rank, world, slices))?;
        let nodes = own.into_nodes();
        if slices == 0 || !nodes.iter().map(|node| (node.level, node.number)).eq(expected) {
            return Err(Error::Gang(format!("rank {rank} of {world} has not all of its part of {slices} slices")));
        }
        like.iter().try_for_each(|tensor| self.expect_here("like", tensor))?;
        let pack = |node: super::Node| {
            if node.sum.elements() != elements {
                let what = format!("a sum of {} elements in the place of {elements}", node.sum.elements());
                return Err(Error::Gang(what));
            }
            node.sum.tensors().iter().try_for_each(|tensor| self.expect_here("sum", tensor))?;
            Ok(((node.level, node.number), pieces::pack(&self.on, &node.sum, lengths)?))
        };
        nodes.into_iter().map(pack).collect()
    }

    fn expect_here(&self, what: &'static str, tensor: &Tensor) -> Result<()> {
        let place = tensor.stream();
        if place.as_ref().is_some_and(|on| on.is(&self.on)) {
            return Ok(());
        }
        let found = place.map_or_else(|| "the host".to_owned(), |on| on.name());
        Err(Error::Place { op: OP, what, found, expected: self.on.name() })
    }

    /// Whether all members are about to do the same, and can.
    fn agree(&mut self, operation: Operation, elements: usize, way: Way, is_able: bool) -> Result<()> {
        let words = [operation.word(), elements as u64, way as u64];
        let same: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let all = self.ring.all_gather([&same[..], &[u8::from(is_able)]].concat())?;
        for (rank, bytes) in all.iter().enumerate() {
            match bytes.split_last() {
                Some((1, theirs)) if *theirs == same => {}
                Some((0, theirs)) if *theirs == same => {
                    return Err(Error::Gang(format!("rank {rank} cannot do {operation:?}: it says itself why")));
                }
                _ => {
                    let what = format!("rank {rank} does something else than {operation:?} of {elements} elements");
                    return Err(Error::Gang(what));
                }
            }
        }
        Ok(())
    }

    /// The end of the group for this member, if something went wrong: others may wait for it within NCCL.
    fn or_abort<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.communicator.abort().err().filter(Error::is_stuck).unwrap_or(error))
    }
}

/// Gives everybody the place that rank 0 makes.
fn share_id(ring: &mut dyn Collective, api: &Api) -> Result<UniqueId> {
    let mut bytes = match ring.rank() {
        0 => api.unique_id().map_or_else(String::into_bytes, |id| [&[0], &id.0[..]].concat()),
        _ => Vec::new(),
    };
    ring.broadcast(0, &mut bytes)?;
    match bytes.split_first().map(|(kind, id)| (kind, <[u8; UniqueId::BYTES]>::try_from(id))) {
        Some((0, Ok(id))) => Ok(UniqueId(id)),
        _ => Err(Error::Gang(format!("NCCL of rank 0 makes no place to meet: {}", String::from_utf8_lossy(&bytes)))),
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.ring.rank()
    }

    fn world(&self) -> usize {
        self.ring.world()
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> Result<Bucket> {
        let reduced = match self.way(own.slices(), elements(like)) {
            Ok(way) => self.reduce(own, like, way),
            Err(e) => Err(e),
        };
        self.or_abort(reduced)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.ring.broadcast(root, bytes)
    }

    fn all_gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.ring.all_gather(own)
    }
}
