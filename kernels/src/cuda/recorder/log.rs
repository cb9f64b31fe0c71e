//! What a pass asked of the device.

use std::collections::HashSet;

use super::blocks::Purpose;
use crate::cuda::{Address, Graph, Operation};

/// Memory that a pass asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocation {
    pub(super) address: Address,
    pub(super) bytes: usize,
    pub(super) purpose: Purpose,
}

/// Operations between two reads, which run in one piece.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Where it ends in the list of operations; it begins where the one before ends.
    pub(super) end: usize,
    /// Made when the stretch is first replayed.
    pub(super) graph: Option<Box<dyn Graph>>,
}

/// A pass, operation by operation.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) operations: Vec<Operation<'static>>,
    pub(super) stretches: Vec<Stretch>,
    /// In the order in which they were asked for. A block that was given back in between may come twice.
    pub(super) allocations: Vec<Allocation>,
    /// The blocks that may not go as long as the log is there.
    pub(super) held: HashSet<Address>,
}

impl Log {
    /// The first operation of a stretch, which need not be there yet.
    pub(super) fn begin(&self, stretch: usize) -> usize {
        if stretch == 0 { 0 } else { self.stretches[stretch - 1].end }
    }

    /// Ends the stretch that is being recorded; one without operations is none.
    pub(super) fn end_stretch(&mut self) {
        let end = self.operations.len();
        if end > self.begin(self.stretches.len()) {
            self.stretches.push(Stretch { end, graph: None });
        }
    }

    /// Makes two of a stretch.
    pub(super) fn split(&mut self, stretch: usize, at: usize) {
        let end = std::mem::replace(&mut self.stretches[stretch], Stretch { end: at, graph: None }).end;
        self.stretches.insert(stretch + 1, Stretch { end, graph: None });
    }

    /// The blocks that are held without being named any more, held no longer.
    pub(super) fn unnamed(&mut self) -> Vec<Address> {
        let named: HashSet<Address> = self.allocations.iter().map(|allocation| allocation.address).collect();
        self.held.extract_if(|address| !named.contains(address)).collect()
    }
}
