//! The memory of recordings.
//!
//! A block is handed out again and again: to the tensors of one pass one after the other, in the order of the device's work,
//! and to those of the next. All recordings of a device share their blocks, as only one pass is under way at a time. A block
//! stays as long as a recording names it or a tensor lives in it.

use std::collections::HashMap;

use super::log::Allocation;
use crate::cuda::Address;

/// Memory of which blocks for small uploads are parts, side by side in the order in which they were first asked for, so that
/// one copy fills them all.
pub(super) const PAGE_BYTES: usize = 256 << 10;
/// What is small.
pub(super) const SMALL_BYTES: usize = 32 << 10;
/// Where blocks begin.
pub(super) const ALIGNMENT: usize = 256;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The page that it is a part of.
    page: Option<Address>,
}

/// The page of which the next block is a part.
#[derive(Debug)]
struct Open {
    page: Address,
    used: usize,
}

/// The blocks of all recordings of a device. Where memory is given back, the answer is what is for the driver now.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: HashMap<Address, Block>,
    resting: Vec<Address>,
    /// The blocks of every page.
    pages: HashMap<Address, usize>,
    open: Option<Open>,
}

impl Blocks {
    /// Hands out the smallest idle block that is large enough and not much too large. All are looked at: that is for
    /// recording, while replaying is spared an order to keep.
    pub(super) fn find(&mut self, purpose: Purpose, bytes: usize) -> Option<Address> {
        let most = (bytes + bytes / 4).max(ALIGNMENT);
        let fits = |block: &Block| {
            block.in_use == Use::Idle && block.purpose == purpose && (bytes..=most).contains(&block.bytes)
        };
        let fitting = self.blocks.iter_mut().filter(|(_, block)| fits(block));
        let (&address, block) = fitting.min_by_key(|(address, block)| (block.bytes, **address))?;
        block.in_use = Use::Live;
        Some(address)
    }

    /// Hands out a certain block, unless somebody has it still.
    pub(super) fn take(&mut self, address: Address) -> bool {
        let Some(block) = self.blocks.get_mut(&address).filter(|block| block.in_use == Use::Idle) else { return false };
        block.in_use = Use::Live;
        true
    }

    /// Takes in memory that is handed out, unless it is a block already.
    pub(super) fn add(&mut self, Allocation { address, bytes, purpose }: Allocation) {
        let block = Block { bytes, purpose, in_use: Use::Live, holders: 0, page: None };
        self.blocks.entry(address).or_insert(block);
    }

    /// Takes in a page.
    pub(super) fn open(&mut self, page: Address) {
        self.pages.insert(page, 0);
        self.open = Some(Open { page, used: 0 });
    }

    /// A new block for a small upload, if the open page has room for it.
    pub(super) fn carve(&mut self, bytes: usize) -> Option<Address> {
        let open = self.open.as_mut().filter(|open| open.used + bytes <= PAGE_BYTES)?;
        let (page, address) = (open.page, open.page.offset(open.used));
        open.used += bytes.next_multiple_of(ALIGNMENT);
        *self.pages.get_mut(&page)? += 1;
        let block = Block { bytes, purpose: Purpose::Upload, in_use: Use::Live, holders: 0, page: Some(page) };
        self.blocks.insert(address, block);
        Some(address)
    }

    /// Whether two blocks are parts of one page.
    pub(super) fn share_page(&self, a: Address, b: Address) -> bool {
        let page = |address| self.blocks.get(&address).and_then(|block| block.page);
        page(a).is_some() && page(a) == page(b)
    }

    /// Takes back what somebody had.
    pub(super) fn give_back(&mut self, address: Address, in_pass: bool) -> Option<Address> {
        let Some(block) = self.blocks.get_mut(&address) else { return Some(address) };
        if block.holders == 0 {
            return self.remove(address);
        }
        if in_pass && block.purpose == Purpose::Upload {
            block.in_use = Use::Resting;
            self.resting.push(address);
        } else {
            block.in_use = Use::Idle;
        }
        None
    }

    /// The pass is over: what rested may be handed out.
    pub(super) fn end_of_pass(&mut self) {
        for address in std::mem::take(&mut self.resting) {
            if let Some(block) = self.blocks.get_mut(&address).filter(|block| block.in_use == Use::Resting) {
                block.in_use = Use::Idle;
            }
        }
    }

    /// One more recording names a block.
    pub(super) fn hold(&mut self, address: Address) {
        if let Some(block) = self.blocks.get_mut(&address) {
            block.holders += 1;
        }
    }

    /// One recording less does. Without any, a block that somebody has goes as soon as it is given back.
    pub(super) fn let_go(&mut self, address: Address) -> Option<Address> {
        let block = self.blocks.get_mut(&address)?;
        block.holders -= 1;
        if block.holders > 0 || block.in_use == Use::Live { None } else { self.remove(address) }
    }

    /// A part of a page goes with the last of its parts.
    fn remove(&mut self, address: Address) -> Option<Address> {
        let block = self.blocks.remove(&address)?;
        let Some(page) = block.page else { return Some(address) };
        let parts = self.pages.get_mut(&page)?;
        *parts -= 1;
        if *parts > 0 {
            return None;
        }
        self.pages.remove(&page);
        self.open.take_if(|open| open.page == page);
        Some(page)
    }
}
