//! Four-bit weights: decoding, and products with bfloat16.

use anyhow::Result;
use kernels::nf4::{self, Nf4Weight, Rounding};
use kernels::{Device, Dtype, Tensor};

use super::super::{Place, noise};
use super::reference::{Host, dot, of_product};
use super::{Ready, copies, on_device};

/// The size of a weight's values.
const DEVIATION: f32 = 0.02;

/// Copies of a weight that are used in turn.
struct Weights {
    host: Nf4Weight,
    copies: Vec<Nf4Weight>,
}

impl Weights {
    fn new(shape: [usize; 2], place: Place, device: &Device) -> Result<Self> {
        let host = nf4::quantize(&noise::tensor(1, &shape, DEVIATION)?, true)?;
        let copies = (0..copies(host.bytes(), place)).map(|_| host.on(device)).collect::<Result<_, _>>()?;
        Ok(Self { host, copies })
    }

    fn of(&self, turn: usize) -> &Nf4Weight {
        &self.copies[turn % self.copies.len()]
    }

    /// The decoded values, by the host.
    fn decoded(&self) -> Result<Tensor> {
        Ok(nf4::dequantize_to(&self.host, Dtype::Bf16)?)
    }
}

/// Decodes a weight.
pub(super) struct Dequantize(Weights);

impl Dequantize {
    pub(super) fn new(shape: [usize; 2], place: Place, device: &Device) -> Result<Self> {
        Weights::new(shape, place, device).map(Self)
    }
}

impl Ready for Dequantize {
    fn run(&mut self, turn: usize) -> Result<()> {
        Ok(nf4::dequantize_to(self.0.of(turn), Dtype::Bf16).map(drop)?)
    }

    /// The share of the values whose bits are not those of the host.
    fn error(&mut self) -> Result<Option<f64>> {
        let found = nf4::dequantize_to(self.0.of(0), Dtype::Bf16)?;
        on_device(&found)?;
        let (found, wanted) = (found.to_host()?, self.0.decoded()?);
        let pairs = found.bf16()?.iter().zip(wanted.bf16()?);
        let different = pairs.filter(|(f, w)| f.to_bits() != w.to_bits()).count();
        Ok(Some(different as f64 / wanted.len() as f64))
    }
}

/// Multiplies rows with a weight.
pub(super) struct Product {
    weights: Weights,
    x: Tensor, // [rows, d_in]
}

impl Product {
    pub(super) fn new(shape: [usize; 2], rows: usize, place: Place, device: &Device) -> Result<Self> {
        let x = device.put(&noise::tensor(2, &[rows, shape[1]], 1.0)?.to_bf16())?;
        Ok(Self { weights: Weights::new(shape, place, device)?, x })
    }
}

impl Ready for Product {
    fn run(&mut self, turn: usize) -> Result<()> {
        Ok(nf4::linear(&self.x, self.weights.of(turn), Rounding::Bf16).map(drop)?)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let y = nf4::linear(&self.x, self.weights.of(0), Rounding::Bf16)?;
        on_device(&y)?;
        let [x, weight] = [Host::of(&self.x), Host::of(&self.weights.decoded()?)];
        Ok(Some(of_product(&Host::of(&y), |row, col| dot(x.row(row), weight.row(col)))))
    }
}

/// The gradient of the rows.
pub(super) struct InputGradient {
    weights: Weights,
    dy: Tensor, // [rows, d_out]
}

impl InputGradient {
    pub(super) fn new(shape: [usize; 2], rows: usize, place: Place, device: &Device) -> Result<Self> {
        let dy = device.put(&noise::tensor(2, &[rows, shape[0]], 1.0)?.to_bf16())?;
        Ok(Self { weights: Weights::new(shape, place, device)?, dy })
    }
}

impl Ready for InputGradient {
    fn run(&mut self, turn: usize) -> Result<()> {
        Ok(nf4::linear_backward_input(&self.dy, self.weights.of(turn), Rounding::Bf16).map(drop)?)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let dx = nf4::linear_backward_input(&self.dy, self.weights.of(0), Rounding::Bf16)?;
        on_device(&dx)?;
        let [dy, weight] = [Host::of(&self.dy), Host::of(&self.weights.decoded()?)];
        let column = |col: usize| (0..weight.rows()).map(|row| weight.at(row, col)).collect::<Vec<f32>>();
        Ok(Some(of_product(&Host::of(&dx), |row, col| dot(dy.row(row), &column(col)))))
    }
}
