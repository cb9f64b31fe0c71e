//! The ceilings: a copy, and a product of bfloat16.

use anyhow::Result;
use kernels::{Device, Tensor, gemm, rows};

use super::super::noise;
use super::reference::{Host, dot, of_product, relative};
use super::{Ready, on_device};

/// Larger copies are not brought back to be compared.
const COMPARED: usize = 1 << 24;

/// Memory that is copied.
pub(super) struct Copy {
    source: Tensor,
}

impl Copy {
    pub(super) fn new(bytes: usize, device: &Device) -> Result<Self> {
        const COLS: usize = 4096;
        let rows = bytes / size_of::<f32>() / COLS;
        Ok(Self { source: device.put(&noise::tensor(1, &[rows, COLS], 1.0)?)? })
    }

    fn copy(&self) -> Result<Tensor> {
        Ok(rows::concat(std::slice::from_ref(&self.source))?)
    }
}

impl Ready for Copy {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.copy().map(drop)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let copy = self.copy()?;
        on_device(&copy)?;
        if copy.len() > COMPARED {
            return Ok(None);
        }
        let (found, wanted) = (copy.to_host()?, self.source.to_host()?);
        Ok(Some(relative(found.f32()?.iter().zip(wanted.f32()?).map(|(&f, &w)| (f, f64::from(w))))))
    }
}

/// Two matrices.
pub(super) struct Product {
    x: Tensor,
    weight: Tensor,
}

impl Product {
    pub(super) fn new(size: usize, device: &Device) -> Result<Self> {
        let matrix =
            |seed| device.put(&noise::tensor(seed, &[size, size], 1.0)?.to_bf16()).map_err(anyhow::Error::from);
        Ok(Self { x: matrix(1)?, weight: matrix(2)? })
    }
}

impl Ready for Product {
    fn run(&mut self, _turn: usize) -> Result<()> {
        Ok(gemm::linear(&self.x, &self.weight, None).map(drop)?)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let y = gemm::linear(&self.x, &self.weight, None)?;
        on_device(&y)?;
        let [x, weight] = [Host::of(&self.x), Host::of(&self.weight)];
        Ok(Some(of_product(&Host::of(&y), |row, col| dot(x.row(row), weight.row(col)))))
    }
}
