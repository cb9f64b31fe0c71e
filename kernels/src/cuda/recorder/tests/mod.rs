#![allow(clippy::unwrap_used)]

mod random;
mod scenes;
mod step;

use std::sync::{Arc, Mutex};

use crate::cuda::emulator::Emulator;
use crate::cuda::{Address, Arg, Driver, Geometry, Graph, Operation, Product, Source, Stream};
use crate::{Dtype, Result, Tensor};

/// An emulator that counts what it is asked for one by one.
#[derive(Debug)]
struct Watched {
    device: Arc<Emulator>,
    asked: Mutex<Asked>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    allocations: usize,
    writes: usize,
    operations: usize,
    graphs: usize,
}

impl Watched {
    /// A device of so many bytes that runs launches once.
    fn new(bytes: usize) -> Arc<Self> {
        let device = Arc::new(Emulator::with_memory(bytes).in_one_order());
        Arc::new(Self { device, asked: Mutex::default() })
    }

    fn stream(self: &Arc<Self>) -> Stream {
        Stream::new(Arc::clone(self) as Arc<dyn Driver>)
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Asked {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn count(&self, field: impl FnOnce(&mut Asked) -> &mut usize) {
        *field(&mut self.asked.lock().unwrap()) += 1;
    }
}

impl Driver for Watched {
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
        self.count(|asked| &mut asked.allocations);
        self.device.allocate(bytes)
    }

    fn free(&self, address: Address) {
        self.device.free(address);
    }

    fn write(&self, to: Address, from: &[u8]) -> Result<()> {
        self.count(|asked| &mut asked.writes);
        self.device.write(to, from)
    }

    fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        self.device.read(from, to)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.count(|asked| &mut asked.operations);
        self.device.copy(from, to, bytes)
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.count(|asked| &mut asked.operations);
        self.device.fill(to, byte, bytes)
    }

    unsafe fn launch(&self, source: &Source, kernel: &'static str, geometry: Geometry, args: &[Arg]) -> Result<()> {
        self.count(|asked| &mut asked.operations);
        // SAFETY: the caller's promise.
        unsafe { self.device.launch(source, kernel, geometry, args) }
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.count(|asked| &mut asked.operations);
        // SAFETY: the caller's promise.
        unsafe { self.device.multiply(product) }
    }

    fn record(self: Arc<Self>, operations: &[Operation<'static>]) -> Result<Box<dyn Graph>> {
        self.count(|asked| &mut asked.graphs);
        Arc::clone(&self.device).record(operations)
    }

    fn wait(&self) -> Result<()> {
        self.device.wait()
    }
}

const KERNELS: Source = Source {
    name: "recorder",
    text: r#"
extern "C" __global__ void mix(
    const float* a,
    const float* b,
    float factor,
    float* y,
    u32 n)
{
    if (threadIdx.x < n) y[threadIdx.x] = factor * a[threadIdx.x] + b[threadIdx.x];
}
extern "C" __global__ void scale(
    float* y,
    float factor,
    u32 n)
{
    if (threadIdx.x < n) y[threadIdx.x] *= factor;
}"#,
};

fn block(n: usize) -> Geometry {
    Geometry::blocks(1, (n.next_multiple_of(32)) as u32)
}

/// `factor · a + b`, of equally many values.
fn mix(on: &Stream, factor: f32, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = on.result(a.shape(), Dtype::F32)?;
    let args = [a.arg()?, b.arg()?, Arg::F32(factor), y.arg_mut()?, Arg::U32(a.len() as u32)];
    // SAFETY: all have so many values.
    unsafe { on.launch(&KERNELS, "mix", block(a.len()), &args)? };
    Ok(y)
}

/// `y · factor`, in place.
fn scale(on: &Stream, y: &mut Tensor, factor: f32) -> Result<()> {
    let args = [y.arg_mut()?, Arg::F32(factor), Arg::U32(y.len() as u32)];
    // SAFETY: y has so many values.
    unsafe { on.launch(&KERNELS, "scale", block(y.len()), &args) }
}

/// Values on a device.
fn put(on: &Stream, values: &[f32]) -> Tensor {
    Tensor::from_f32(&[values.len()], values.to_vec()).unwrap().to_device(on).unwrap()
}
