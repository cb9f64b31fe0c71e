//! Sums over the members of a gang: what makes many workers train one model.
//!
//! A [`Collective`] is one member's end of a group of `world` ranks. All members call the same operations in the same
//! order with operands of the same shapes; each call returns when this member has its result. A group does not outlive a
//! failure: after an error it is good for nothing but to be dropped, and the members meet again in another one.
//!
//! - [`local`]: members are threads of one process; slow and obvious, the reference.
//! - [`tcp`]: a ring over streams that the caller has opened and authenticated.
//!
//! # Order of sums
//! What is summed are slices of a step, along the [`Tree`] of their numbers, whoever has computed them: every world gives the
//! same bits. A rank brings the slices [`slices_of`] gives it, those that are complete in the tree already added.

pub mod local;
pub mod tcp;
#[cfg(test)]
mod tests;
mod tree;

use crate::{Result, Tensor};
pub use tree::{Node, Tree, slices_of};

/// One member's end of a group.
pub trait Collective: Send {
    /// This member's place, from 0.
    fn rank(&self) -> usize;

    /// The number of members.
    fn world(&self) -> usize;

    /// The sum of the slices of all members. It lies where this member's slices lie, or on the host if it brings none.
    ///
    /// # Shapes
    /// A sum is f32 of the tree's shape, the same at every member.
    ///
    /// # Errors
    /// [`Error::Gang`](crate::Error::Gang) if a member is gone or does something else, or slices are missing.
    fn all_reduce(&mut self, own: Tree) -> Result<Tensor>;

    /// Gives everybody the bytes of rank `root`; what the others bring is replaced.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()>;

    /// Gives everybody the bytes of everybody, by rank; their lengths may differ.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Waits until everybody is here.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn barrier(&mut self) -> Result<()> {
        self.gather(Vec::new()).map(drop)
    }
}

/// Adds flat sums on the host, for a group whose members meet there, and brings the total to where the slices lie.
fn on_host(own: Tree, sum: impl FnOnce(&[Node], Tree) -> Result<Vec<f32>>) -> Result<Tensor> {
    let shape = own.shape().to_vec();
    let elements = shape.iter().product();
    let flat = |node: &Node| {
        Ok(Node { level: node.level, number: node.number, sum: node.sum.to_host()?.reshaped(&[elements])? })
    };
    let nodes = own.nodes().iter().map(flat).collect::<Result<Vec<_>>>()?;
    let total = Tensor::from_f32(&shape, sum(&nodes, Tree::new(own.slices(), &[elements]))?)?;
    match own.nodes().first() {
        Some(node) => total.beside(&node.sum),
        None => Ok(total),
    }
}
