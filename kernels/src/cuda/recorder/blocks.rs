//! The memory of recordings.
//!
//! A block is handed out again and again: to the tensors of one pass one after the other, in the order of the device's work,
//! and to those of the next. All recordings of a device share their blocks, as only one pass is under way at a time. A block
//! stays as long as a recording names it or a tensor lives in it.

use std::collections::{BTreeSet, HashMap};

use super::log::Allocation;
use crate::cuda::Address;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Results of operations.
    Work,
    /// Numbers of the host. Nothing else comes into such a block during a pass, so that they may be copied there as soon as
    /// they are known, ahead of operations that wait.
    Upload,
}

/// ```text
/// Live ── given back ──> Idle ── handed out ──> Live
///   └── given back during a pass, if for uploads ──> Resting ── end of the pass ──> Idle
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Somebody has it.
    Live,
    /// Nobody has it, but what waits in this pass may still read it.
    Resting,
    /// To be handed out.
    Idle,
}

#[derive(Debug)]
struct Block {
    bytes: usize,
    purpose: Purpose,
    in_use: Use,
    /// Recordings that name it.
    holders: usize,
}

/// What became of memory that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// It stays with the recordings.
    Kept,
    /// It is for the driver.
    ToDriver,
}

/// The blocks of all recordings of a device.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: HashMap<Address, Block>,
    /// Those to be handed out, the smallest of a purpose first.
    idle: BTreeSet<(Purpose, usize, Address)>,
    resting: Vec<Address>,
}

impl Blocks {
    /// An idle block that is large enough and not much too large.
    pub(super) fn find(&mut self, purpose: Purpose, bytes: usize) -> Option<Address> {
        let most = (bytes + bytes / 4).max(256);
        let range = (purpose, bytes, Address(0))..=(purpose, most, Address(u64::MAX));
        let found = *self.idle.range(range).next()?;
        self.idle.remove(&found);
        let address = found.2;
        self.blocks.get_mut(&address)?.in_use = Use::Live;
        Some(address)
    }

    /// Takes in memory that is handed out, unless it is a block already.
    pub(super) fn add(&mut self, Allocation { address, bytes, purpose }: Allocation) {
        self.blocks.entry(address).or_insert(Block { bytes, purpose, in_use: Use::Live, holders: 0 });
    }

    /// Hands out a certain block, unless somebody has it still.
    pub(super) fn take(&mut self, address: Address) -> bool {
        let Some(block) = self.blocks.get_mut(&address).filter(|block| block.in_use == Use::Idle) else { return false };
        block.in_use = Use::Live;
        self.idle.remove(&(block.purpose, block.bytes, address));
        true
    }

    /// Takes back what somebody had.
    pub(super) fn give_back(&mut self, address: Address, in_pass: bool) -> Returned {
        let Some(block) = self.blocks.get_mut(&address) else { return Returned::ToDriver };
        if block.holders == 0 {
            self.blocks.remove(&address);
            return Returned::ToDriver;
        }
        if in_pass && block.purpose == Purpose::Upload {
            block.in_use = Use::Resting;
            self.resting.push(address);
        } else {
            block.in_use = Use::Idle;
            self.idle.insert((block.purpose, block.bytes, address));
        }
        Returned::Kept
    }

    /// The pass is over: what rested may be handed out.
    pub(super) fn end_of_pass(&mut self) {
        for address in std::mem::take(&mut self.resting) {
            if let Some(block) = self.blocks.get_mut(&address).filter(|block| block.in_use == Use::Resting) {
                block.in_use = Use::Idle;
                self.idle.insert((block.purpose, block.bytes, address));
            }
        }
    }

    /// One more recording names a block.
    pub(super) fn hold(&mut self, address: Address) {
        if let Some(block) = self.blocks.get_mut(&address) {
            block.holders += 1;
        }
    }

    /// One recording less does. Without any, memory that nobody has is for the driver, and the rest as soon as it is given
    /// back.
    pub(super) fn let_go(&mut self, address: Address) -> Returned {
        let Some(block) = self.blocks.get_mut(&address) else { return Returned::Kept };
        block.holders -= 1;
        if block.holders > 0 || block.in_use == Use::Live {
            return Returned::Kept;
        }
        self.idle.remove(&(block.purpose, block.bytes, address));
        self.blocks.remove(&address);
        Returned::ToDriver
    }
}
