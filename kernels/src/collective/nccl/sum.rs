//! Sums of slices between devices, along the [`Tree`] as it is known at every rank.
//!
//! Which nodes a rank has, and which are open behind it, follows from the number of slices and the world alone: nothing but
//! values travels.

use std::ops::Range;

use super::communicator::{Communicator, Transfer};
use super::pieces;
use crate::collective::{Bucket, Node, Tree, slices_of};
use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

/// The level and the number of a node.
pub(super) type Place = (u32, usize);

/// A node of this rank: its place, and its values in pieces.
pub(super) type Own = (Place, Vec<Tensor>);

/// A sum of all members.
pub(super) struct Sum<'a> {
    pub(super) communicator: &'a Communicator,
    pub(super) on: &'a Stream,
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) slices: usize,
}

impl Sum<'_> {
    /// From rank to rank in the order of the slices, each adding its own, and then the total from the last of them to all.
    ///
    /// While a piece is on its way to the next rank, the one behind it comes in: all links work at the same time. Ranks
    /// without a slice only hear the total.
    pub(super) fn chain(&self, own: Vec<Own>, lengths: &[usize]) -> Result<Vec<Tensor>> {
        let last = self.world.min(self.slices) - 1;
        let mut total = match self.rank > last {
            true => Vec::new(),
            false => self.pass_on(own, lengths, self.rank == last)?,
        };
        if self.rank != last {
            total = pieces::blank(self.on, lengths)?;
        }
        let transfers = total
            .iter_mut()
            .map(|piece| Ok(Transfer::Broadcast { at: piece.arg_mut()?.address(), elements: piece.len(), root: last }));
        let transfers = transfers.collect::<Result<Vec<_>>>()?;
        self.transfer(&transfers)?;
        Ok(total)
    }

    /// Takes the sums of the ranks before, adds its own and passes on what is open; the last rank gets the total.
    fn pass_on(&self, own: Vec<Own>, lengths: &[usize], is_last: bool) -> Result<Vec<Tensor>> {
        let before = open_nodes(self.slices, 0..slices_of(self.rank, self.world, self.slices).start)?;
        let mut own: Vec<_> = own.into_iter().map(|(place, pieces)| (place, pieces.into_iter())).collect();
        let (mut total, mut leaving) = (Vec::new(), Vec::new());
        for &len in lengths {
            let mut arriving = pieces::blank(self.on, &vec![len; before.len()])?;
            self.exchange(&leaving, &mut arriving)?;
            let mut tree = Tree::new(self.slices);
            let mine = own.iter_mut().filter_map(|(place, pieces)| pieces.next().map(|piece| (*place, piece)));
            for (place, piece) in before.iter().copied().zip(arriving).chain(mine) {
                tree.push_node(node(place, piece)?)?;
            }
            if is_last {
                total.extend(tree.total()?.into_tensors());
            } else {
                leaving = tree.into_nodes().into_iter().flat_map(|node| node.sum.into_tensors()).collect();
            }
        }
        self.exchange(&leaving, &mut [])?;
        Ok(total)
    }

    /// Sends to the rank behind while the one before is heard.
    fn exchange(&self, leaving: &[Tensor], arriving: &mut [Tensor]) -> Result<()> {
        let mut transfers = Vec::with_capacity(leaving.len() + arriving.len());
        for piece in leaving {
            let from = piece.arg()?.address();
            transfers.push(Transfer::Send { from, elements: piece.len(), to: self.rank + 1 });
        }
        for piece in arriving {
            let to = piece.arg_mut()?.address();
            transfers.push(Transfer::Receive { to, elements: piece.len(), from: self.rank - 1 });
        }
        self.transfer(&transfers)
    }

    /// In one call: everybody gets what everybody has, and adds it.
    pub(super) fn gather(&self, own: &[Own], elements: usize) -> Result<Vec<Tensor>> {
        let places = (0..self.world).map(|rank| open_nodes(self.slices, slices_of(rank, self.world, self.slices)));
        let places = places.collect::<Result<Vec<_>>>()?;
        // As many at every rank: who has fewer sends whatever lies there.
        let most = places.iter().map(Vec::len).max().unwrap_or(0);
        let mut mine = self.on.result(&[most, elements], Dtype::F32)?;
        for (i, (_, pieces)) in own.iter().enumerate() {
            pieces.iter().try_for_each(|piece| self.on.copy(piece, &mut mine, i * elements))?;
        }
        let mut all = self.on.result(&[self.world, most, elements], Dtype::F32)?;
        let (from, to) = (mine.arg()?.address(), all.arg_mut()?.address());
        self.transfer(&[Transfer::AllGather { from, to, elements: most * elements }])?;
        let mut tree = Tree::new(self.slices);
        for (rank, places) in places.iter().enumerate() {
            for (i, place) in places.iter().enumerate() {
                let mut part = self.on.result(&[elements], Dtype::F32)?;
                self.on.copy_part(&all, (rank * most + i) * elements, &mut part, 0, elements)?;
                tree.push_node(node(*place, part)?)?;
            }
        }
        Ok(tree.total()?.into_tensors())
    }

    /// Behind all that was asked of the device so far.
    fn transfer(&self, transfers: &[Transfer]) -> Result<()> {
        self.on.flush()?;
        // SAFETY: the addresses are those of tensors of this device with so many elements. What is given back afterwards is
        // given back in the order of the stream.
        unsafe { self.communicator.group(transfers) }
    }
}

fn node((level, number): Place, piece: Tensor) -> Result<Node> {
    Ok(Node { level, number, sum: Bucket::new(vec![piece])? })
}

/// The nodes that neighbouring slices leave open, in their order.
pub(super) fn open_nodes(slices: usize, some: Range<usize>) -> Result<Vec<Place>> {
    let mut tree = Tree::new(slices);
    some.into_iter().try_for_each(|slice| tree.push(slice, Bucket::default()))?;
    Ok(tree.nodes().iter().map(|node| (node.level, node.number)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_open_follows_from_the_slices() {
        assert_eq!(open_nodes(8, 0..3).unwrap(), [(1, 0), (0, 2)]);
        assert_eq!(open_nodes(8, 3..6).unwrap(), [(0, 3), (1, 2)]);
        // The last slices have no other side.
        assert_eq!(open_nodes(5, 0..5).unwrap(), [(3, 0)]);
        assert_eq!(open_nodes(5, 4..5).unwrap(), [(2, 1)]);
        assert_eq!(open_nodes(5, 0..0).unwrap(), []);
    }
}
