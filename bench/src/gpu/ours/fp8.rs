//! Eight-bit weights: products with bfloat16.

use anyhow::Result;
use kernels::fp8::{self, Fp8Rows};
use kernels::{Device, Tensor};

use super::super::{Place, noise};
use super::reference::{Host, dot, of_product};
use super::{Ready, copies, on_device};

/// The size of a weight's values.
const DEVIATION: f32 = 0.02;

/// Multiplies rows with a weight.
pub(super) struct Product {
    weight: Tensor, // [d_out, d_in], on the host
    copies: Vec<Fp8Rows>,
    x: Tensor, // [rows, d_in]
}

impl Product {
    pub(super) fn new(shape: [usize; 2], rows: usize, place: Place, device: &Device) -> Result<Self> {
        let weight = noise::tensor(1, &shape, DEVIATION)?;
        let cut = fp8::quantize_weight(&weight)?;
        let copies = (0..copies(cut.bytes(), place)).map(|_| cut.on(device)).collect::<Result<_, _>>()?;
        Ok(Self { weight, copies, x: device.put(&noise::tensor(2, &[rows, shape[1]], 1.0)?.to_bf16())? })
    }

    fn product(&self, turn: usize) -> Result<Tensor> {
        Ok(fp8::linear(&self.x, &self.copies[turn % self.copies.len()], None)?)
    }
}

impl Ready for Product {
    fn run(&mut self, turn: usize) -> Result<()> {
        self.product(turn).map(drop)
    }

    /// How far the product is from that of what was not cut.
    fn error(&mut self) -> Result<Option<f64>> {
        let y = self.product(0)?;
        on_device(&y)?;
        let [x, weight] = [Host::of(&self.x), Host::of(&self.weight)];
        Ok(Some(of_product(&Host::of(&y), |row, col| dot(x.row(row), weight.row(col)))))
    }
}
