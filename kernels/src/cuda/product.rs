//! Dense products as devices are asked for them.

use half::bf16;

use super::{Address, Driver};
use crate::fp8;
use crate::gemm::cpu::{MatMut, MatRef, Onto, sgemm};
use crate::{Dtype, Error, Result};

/// A row-major matrix in the memory of a device, or its transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) address: Address,
    /// f32 or bf16; of an operand, bytes are numbers in eight bits (e4m3).
    pub(crate) dtype: Dtype,
    /// Elements from one row to the next, as it lies in memory.
    pub(crate) stride: usize,
    /// Whether columns are to be read as rows.
    pub(crate) transposed: bool,
}

/// `c = alpha · a · b + beta · c`, with `a` `[rows, depth]` and `b` `[depth, cols]` behind their transposes; `c`
/// `[rows, cols]` is not transposed. Sums are f32; operands are of one dtype, and of f32 no bit is dropped. Those in eight bits lie
/// row by row, `b` transposed, with rows of whole 16 bytes and a multiple of 16 columns; cards keep fewer bits of their sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) depth: usize,
    pub(crate) alpha: f32,
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) beta: f32,
    pub(crate) c: Matrix,
}

impl Product {
    /// Whether it is the same to a device, factors bit by bit.
    pub(super) fn same(&self, other: &Self) -> bool {
        let settings = |p: &Self| ([p.rows, p.cols, p.depth], [p.alpha, p.beta].map(f32::to_bits), [p.a, p.b, p.c]);
        settings(self) == settings(other)
    }

    /// Refuses what no card multiplies in eight bits.
    pub(super) fn check_eight_bits(&self) -> Result<()> {
        let Self { a, b, c, depth, cols, .. } = self;
        let is_one = [a, b].iter().any(|operand| operand.dtype == Dtype::U8);
        let extents = [a.stride, b.stride, c.stride, *depth, *cols];
        let aligned = [a, b, c].iter().all(|matrix| matrix.address.0.is_multiple_of(16));
        let whole = aligned && extents.iter().all(|extent| extent.is_multiple_of(16));
        let lies = !a.transposed && b.transposed && a.dtype == b.dtype && c.dtype != Dtype::U8;
        if is_one && !(whole && lies) {
            return Err(Error::Device(format!("no card multiplies this in eight bits: {self:?}")));
        }
        Ok(())
    }

    /// Computes the product on the host, for a device whose memory can be read and written.
    pub(crate) fn on_host(&self, device: &dyn Driver) -> Result<()> {
        let a = self.a.read(device, self.rows, self.depth)?;
        let b = self.b.read(device, self.depth, self.cols)?;
        let mut product = vec![0.0; self.rows * self.cols];
        let (left, right) = (MatRef::new(&a, self.rows, self.depth), MatRef::new(&b, self.depth, self.cols));
        sgemm(self.alpha, left, right, Onto::Nothing, MatMut::new(&mut product, self.rows, self.cols));
        if self.beta != 0.0 {
            let old = self.c.read(device, self.rows, self.cols)?;
            product.iter_mut().zip(&old).for_each(|(new, old)| *new += self.beta * old);
        }
        self.c.write(device, self.cols, &product)
    }
}

impl Matrix {
    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// The values, row-major and behind the transpose.
    fn read(&self, device: &dyn Driver, rows: usize, cols: usize) -> Result<Vec<f32>> {
        let (lines, width) = if self.transposed { (cols, rows) } else { (rows, cols) };
        let mut values = Vec::with_capacity(rows * cols);
        let mut line = vec![0; width * self.dtype.bytes()];
        for i in 0..lines {
            device.read(self.address.offset(i * self.stride * self.dtype.bytes()), &mut line)?;
            match self.dtype {
                Dtype::U8 => values.extend(line.iter().map(|code| fp8::decode(*code))),
                Dtype::Bf16 => values.extend(line.as_chunks().0.iter().map(|b| bf16::from_ne_bytes(*b).to_f32())),
                _ => values.extend(line.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b))),
            }
        }
        if !self.transposed {
            return Ok(values);
        }
        Ok((0..rows * cols).map(|i| values[i % cols * rows + i / cols]).collect())
    }

    fn write(&self, device: &dyn Driver, cols: usize, values: &[f32]) -> Result<()> {
        for (i, row) in values.chunks_exact(cols).enumerate() {
            let bytes: Vec<u8> = match self.dtype {
                Dtype::Bf16 => row.iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect(),
                _ => row.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            };
            device.write(self.address.offset(i * self.stride * self.dtype.bytes()), &bytes)?;
        }
        Ok(())
    }
}
