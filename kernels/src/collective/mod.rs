//! Sums over the members of a gang: what makes many workers train one model.
//!
//! A [`Collective`] is one member's end of a group of `world` ranks. All members call the same operations in the same
//! order with operands of the same shapes; each call returns when this member has its result. A group does not outlive a
//! failure: after an error it is good for nothing but to be dropped, and the members meet again in another one.
//!
//! - [`local`]: members are threads of one process; slow and obvious, the reference.
//! - [`tcp`]: a ring over streams that the caller has opened and authenticated.
//! - [`nccl`]: cards that exchange buckets directly, opened over one of the others.
//!
//! # Order of sums
//! What is summed are slices of a step, along the [`Tree`] of their numbers, whoever has computed them: every world gives the
//! same bits. A rank brings the slices [`slices_of`] gives it, those that are complete in the tree already added.

mod bucket;
pub mod local;
pub mod nccl;
pub mod tcp;
#[cfg(test)]
mod tests;
mod tree;

use crate::{Error, Result, Tensor};
pub use bucket::Bucket;
pub use tree::{Node, Tree, slices_of};

/// What a member does: members that do not do the same find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    /// Of so many slices.
    AllReduce(usize),
    /// From a rank.
    Broadcast(usize),
    AllGather,
}

impl Operation {
    /// A number of its own.
    fn word(self) -> u64 {
        let (kind, of) = match self {
            Self::AllReduce(slices) => (1, slices),
            Self::Broadcast(root) => (2, root),
            Self::AllGather => (3, 0),
        };
        (kind << 56) | of as u64
    }
}

/// One member's end of a group.
pub trait Collective: Send {
    /// This member's place, from 0.
    fn rank(&self) -> usize;

    /// The number of members.
    fn world(&self) -> usize;

    /// The sum of the slices of all members.
    ///
    /// # Shapes
    /// `like` are tensors with the shapes of the sums, such as the parameters: the total lies where they lie. Everybody has
    /// the same ones, also who brings no slice.
    ///
    /// # Errors
    /// [`Error::Gang`](crate::Error::Gang) if a member is gone or does something else, or slices are missing.
    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> Result<Bucket>;

    /// Gives everybody the bytes of rank `root`; what the others bring is replaced.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()>;

    /// Gives everybody the bytes of everybody, by rank; their lengths may differ.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn all_gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Waits until everybody is here.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn barrier(&mut self) -> Result<()> {
        self.all_gather(Vec::new()).map(drop)
    }
}

/// The sums of a tree as flat nodes on the host, for a group whose members meet there.
fn on_host(own: &Tree, elements: usize) -> Result<Vec<Node>> {
    let flat = |node: &Node| {
        let values = node.sum.to_flat()?;
        match values.len() == elements {
            true => Node::flat(node.level, node.number, values),
            false => Err(Error::Gang(format!("a sum of {} elements in the place of {elements}", values.len()))),
        }
    };
    own.nodes().iter().map(flat).collect()
}

/// The number of elements of all tensors.
fn elements(like: &[&Tensor]) -> usize {
    like.iter().map(|tensor| tensor.len()).sum()
}
