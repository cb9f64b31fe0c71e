//! What device code asks of whoever runs it.

use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::Arc;

use super::{Operation, Product};
use crate::{Error, Result};

/// A place in the memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(pub(crate) u64);

impl Address {
    /// The place so many bytes further.
    pub(crate) fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// The kernels of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The operation, for messages.
    pub(crate) name: &'static str,
    /// The text of `kernel.cu`, without the prelude.
    pub(crate) text: &'static str,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// A pointer.
    Address(Address),
    /// `unsigned`
    U32(u32),
    /// `unsigned long long`
    U64(u64),
    /// `float`
    F32(f32),
}

impl Arg {
    /// A pointer to nothing: an operand that is absent.
    pub(crate) const NULL: Self = Self::Address(Address(0));

    /// The pointer; nothing for a number.
    pub(crate) fn address(self) -> Address {
        if let Self::Address(address) = self { address } else { Address(0) }
    }

    /// A count or an extent, which kernels take as 32 bits.
    ///
    /// # Errors
    /// [`Error::Setting`] if it needs more.
    pub(crate) fn count(op: &'static str, n: usize) -> Result<Self> {
        let refuse = |_| Error::Setting { op, what: format!("{n} is more than a kernel can count") };
        u32::try_from(n).map(Self::U32).map_err(refuse)
    }

    /// Whether it is the same to a kernel, bit by bit.
    pub(crate) fn same(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other) && self.bits() == other.bits()
    }

    /// The bits, the first bytes of which are those of the parameter.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Address(Address(value)) | Self::U64(value) => value,
            Self::U32(value) => u64::from(value),
            Self::F32(value) => u64::from(value.to_bits()),
        }
    }
}

/// How many threads run a kernel, and the shared memory that a block asks for at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Blocks: x, y and z.
    pub(crate) grid: [u32; 3],
    /// Threads of a block: x, y and z.
    pub(crate) block: [u32; 3],
    /// Bytes of `extern __shared__` memory.
    pub(crate) shared: u32,
    /// What those were chosen to fit into.
    pub(crate) limit: SharedLimit,
}

/// Which cards have the shared memory that a launch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedLimit {
    /// Every card.
    EveryCard,
    /// That at hand, whose [`Driver::most_shared`] the launch was planned for: another card gets another plan.
    ThisCard,
}

impl Geometry {
    /// Blocks of so many threads for work that is cut into so many of them.
    pub(crate) fn blocks(blocks: usize, threads: u32) -> Self {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX); // which the driver refuses
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0, limit: SharedLimit::EveryCard }
    }

    /// A thread for every element, in blocks of 256.
    pub(crate) fn elements(n: usize) -> Self {
        Self::blocks(n.div_ceil(256), 256)
    }

    /// A thread for every four elements, likewise.
    pub(crate) fn fours(n: usize) -> Self {
        Self::elements(n.div_ceil(4))
    }

    /// The same with memory that a block asks for, which every card has.
    pub(crate) fn with_shared(self, bytes: usize) -> Self {
        Self { shared: u32::try_from(bytes).unwrap_or(u32::MAX), ..self }
    }

    /// The same with memory that the card at hand has: [`Driver::most_shared`] was asked.
    pub(crate) fn with_shared_of_this_card(self, bytes: usize) -> Self {
        Self { limit: SharedLimit::ThisCard, ..self.with_shared(bytes) }
    }
}

/// Runs kernels in order, on one stream.
pub(crate) trait Driver: Debug + Send + Sync {
    /// What people call the device.
    fn name(&self) -> String;

    /// The most shared memory that a block can ask for, in bytes.
    fn most_shared(&self) -> usize;

    /// Whether [`Driver::multiply`] takes operands in eight bits.
    fn multiplies_fp8(&self) -> bool;

    /// Memory that can still be asked for, in bytes.
    fn free_bytes(&self) -> usize;

    /// Memory whose content is whatever it was; aligned to 256 bytes.
    ///
    /// # Errors
    /// [`Error::Memory`] with what was asked for and what there is.
    fn allocate(&self, bytes: usize) -> Result<Address>;

    /// Gives memory back, behind what was asked for before.
    fn free(&self, address: Address);

    /// Copies to the device; the host's memory may change once the call returns.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    fn write(&self, to: Address, from: &[u8]) -> Result<()>;

    /// Waits for all that was asked for, and copies from the device.
    ///
    /// # Errors
    /// As [`Driver::write`].
    fn read(&self, from: Address, to: &mut [u8]) -> Result<()>;

    /// Copies within the device; the places do not overlap.
    ///
    /// # Errors
    /// As [`Driver::write`].
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Fills memory with a byte.
    ///
    /// # Errors
    /// As [`Driver::write`].
    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()>;

    /// Runs a kernel of a file.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in their order, and what it reads and writes lies in memory of this device.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the file does not compile, the geometry is more than the device allows or the kernel
    /// fails.
    unsafe fn launch(&self, source: &Source, kernel: &'static str, geometry: Geometry, arguments: &[Arg])
    -> Result<()>;

    /// Multiplies two matrices, of which none is empty but perhaps the depth.
    ///
    /// # Safety
    /// The matrices lie in memory of this device, and the result overlaps neither operand.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails or its library is missing.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;

    /// Makes one piece of operations that were asked for one by one before, without running them.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    fn record(self: Arc<Self>, operations: &[Operation<'static>]) -> Result<Box<dyn Graph>>;

    /// Waits for all that was asked for.
    ///
    /// # Errors
    /// As [`Driver::write`].
    fn wait(&self) -> Result<()>;

    /// Its stream for libraries of CUDA that work beside it; none if it is no card.
    fn raw_stream(self: Arc<Self>) -> Option<Arc<dyn RawStream>> {
        None
    }
}

/// The stream of a card as libraries of CUDA know it.
pub(crate) trait RawStream: Send + Sync {
    /// Makes the card that of this thread, which may be any, and gives the handle of the stream.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    fn enter(&self) -> Result<*mut c_void>;

    /// Whether everything is done that was asked for, which is not waited for.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Lost`] if something that was asked for has failed.
    fn is_idle(&self) -> Result<bool>;
}

/// Operations that a device runs in one piece and in their order.
pub(crate) trait Graph: Debug + Send {
    /// Gives other arguments to the kernel of an operation, from the next run on.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    fn change(&mut self, operation: usize, arguments: &[Arg]) -> Result<()>;

    /// Runs all of them, behind what was asked for before.
    ///
    /// # Safety
    /// What they read and write still lies in memory of the device, as [`Driver::launch`] and [`Driver::multiply`] have it.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Kernel`] if the device or a kernel fails.
    unsafe fn launch(&self) -> Result<()>;
}
