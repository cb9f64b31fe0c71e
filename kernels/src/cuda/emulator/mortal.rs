//! A device that is lost after some launches, for tests of those who live on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Emulator, List};
use crate::cuda::{Address, Arg, Driver, Geometry, Graph, Operation, Product, Source};
use crate::{Error, Result};

/// An emulator that is lost as a card is whose kernel goes astray: the launch that does it says nothing, and whatever is asked
/// for afterwards fails.
#[derive(Debug)]
pub(crate) struct Mortal {
    device: Emulator,
    launches: AtomicUsize,
    /// Launches that go well.
    most: usize,
}

impl Mortal {
    /// The launch after so many is its last.
    pub(crate) fn new(device: Emulator, most: usize) -> Self {
        Self { device, launches: AtomicUsize::new(0), most }
    }

    fn alive(&self) -> Result<&Emulator> {
        if self.launches.load(Ordering::Relaxed) <= self.most {
            return Ok(&self.device);
        }
        Err(Error::Lost(format!("launch {} on {} went astray, as was asked for", self.most + 1, self.device.name())))
    }
}

impl Driver for Mortal {
    fn name(&self) -> String {
        self.device.name()
    }

    fn most_shared(&self) -> usize {
        self.device.most_shared()
    }

    fn multiplies_fp8(&self) -> bool {
        self.device.multiplies_fp8()
    }

    fn free_bytes(&self) -> usize {
        self.device.free_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.alive()?.allocate(bytes)
    }

    fn free(&self, address: Address) {
        self.device.free(address);
    }

    fn write(&self, to: Address, from: &[u8]) -> Result<()> {
        self.alive()?.write(to, from)
    }

    fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        self.alive()?.read(from, to)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.alive()?.copy(from, to, bytes)
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.alive()?.fill(to, byte, bytes)
    }

    unsafe fn launch(
        &self,
        source: &Source,
        kernel: &'static str,
        geometry: Geometry,
        arguments: &[Arg],
    ) -> Result<()> {
        let device = self.alive()?;
        if self.launches.fetch_add(1, Ordering::Relaxed) == self.most {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { device.launch(source, kernel, geometry, arguments) }
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.alive()?.multiply(product) }
    }

    fn record(self: Arc<Self>, operations: &[Operation<'static>]) -> Result<Box<dyn Graph>> {
        self.alive()?;
        Ok(Box::new(List::of(self, operations)))
    }

    fn wait(&self) -> Result<()> {
        self.alive()?.wait()
    }
}
