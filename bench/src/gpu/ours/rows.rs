//! What a layer does between its products: norm behind a residual, rotation, gate.

use anyhow::Result;
use kernels::rope::{self, Scaling, Tables};
use kernels::{Device, Tensor, rms_norm, swiglu};

use super::super::noise;
use super::reference::{Host, dot, relative, sample};
use super::{Ready, on_device};

const EPS: f32 = 1e-5;
/// Rows that are compared.
const COMPARED: usize = 16;
/// Positions of a sequence, after which the next one begins.
const POSITIONS: usize = 1024;

/// A residual is added to a stream, and the sum normalised.
pub(super) struct RmsNorm {
    stream: Tensor,         // [rows, cols]
    residuals: [Tensor; 2], // one the negative of the other, so that the stream does not grow
    gain: Tensor,           // [cols]
}

impl RmsNorm {
    pub(super) fn new(rows: usize, cols: usize, device: &Device) -> Result<Self> {
        let stream = device.put(&noise::tensor(1, &[rows, cols], 1.0)?)?;
        let residual = noise::normals(2, rows * cols, 1.0);
        let negative = Tensor::from_f32(&[rows, cols], residual.iter().map(|v| -v).collect())?;
        let residuals = [device.put(&Tensor::from_f32(&[rows, cols], residual)?)?, device.put(&negative)?];
        Ok(Self { stream, residuals, gain: device.put(&noise::tensor(3, &[cols], 1.0)?)? })
    }

    fn forward(&mut self, turn: usize) -> Result<Tensor> {
        Ok(rms_norm::add_then_forward(&mut self.stream, &self.residuals[turn % 2], &self.gain, EPS)?.0)
    }
}

impl Ready for RmsNorm {
    fn run(&mut self, turn: usize) -> Result<()> {
        self.forward(turn).map(drop)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let [before, residual, gain] = [&self.stream, &self.residuals[0], &self.gain].map(Host::of);
        let y = self.forward(0)?;
        on_device(&y)?;
        let y = Host::of(&y);
        let mut pairs = Vec::new();
        for row in sample(y.rows(), COMPARED) {
            let sum: Vec<f32> = before.row(row).iter().zip(residual.row(row)).map(|(a, b)| a + b).collect();
            let scale = 1.0 / (dot(&sum, &sum) / sum.len() as f64 + f64::from(EPS)).sqrt();
            let wanted = sum.iter().zip(gain.row(0)).map(|(&v, &g)| f64::from(v) * f64::from(g) * scale);
            pairs.extend(y.row(row).iter().copied().zip(wanted));
        }
        Ok(Some(relative(pairs)))
    }
}

/// Queries are rotated in place.
pub(super) struct Rope {
    x: Tensor, // [rows, heads * head_dim]
    positions: Vec<u32>,
    config: rope::Config,
    tables: Tables,
    heads: usize,
}

impl Rope {
    pub(super) fn new(rows: usize, heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        let config = rope::Config { head_dim, theta: 10_000.0, scaling: Scaling::None };
        Ok(Self {
            x: device.put(&noise::tensor(1, &[rows, heads * head_dim], 1.0)?)?,
            positions: (0..rows).map(|row| (row % POSITIONS) as u32).collect(),
            tables: Tables::new(&config, POSITIONS)?,
            config,
            heads,
        })
    }
}

impl Ready for Rope {
    fn run(&mut self, _turn: usize) -> Result<()> {
        Ok(rope::apply(&mut self.x, &self.positions, &self.tables, self.heads)?)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let before = Host::of(&self.x);
        self.run(0)?;
        on_device(&self.x)?;
        let after = Host::of(&self.x);
        let frequencies = rope::inverse_frequencies(&self.config);
        let (width, half) = (self.config.head_dim, frequencies.len());
        let mut pairs = Vec::new();
        for row in sample(after.rows(), COMPARED) {
            let heads = before.row(row).chunks(width).zip(after.row(row).chunks(width));
            for (x, y) in heads {
                for (i, &frequency) in frequencies.iter().enumerate() {
                    // The angle is rounded as the checkpoints were trained with it.
                    let (sin, cos) = f64::from(self.positions[row] as f32 * frequency).sin_cos();
                    let (re, im) = (f64::from(x[i]), f64::from(x[i + half]));
                    pairs.extend([(y[i], re * cos - im * sin), (y[i + half], re * sin + im * cos)]);
                }
            }
        }
        Ok(Some(relative(pairs)))
    }
}

/// `silu(gate) * up`.
pub(super) struct Swiglu {
    gate: Tensor, // [rows, cols]
    up: Tensor,   // [rows, cols]
}

impl Swiglu {
    pub(super) fn new(rows: usize, cols: usize, device: &Device) -> Result<Self> {
        let operand = |seed| device.put(&noise::tensor(seed, &[rows, cols], 1.0)?).map_err(anyhow::Error::from);
        Ok(Self { gate: operand(1)?, up: operand(2)? })
    }
}

impl Ready for Swiglu {
    fn run(&mut self, _turn: usize) -> Result<()> {
        Ok(swiglu::forward(&self.gate, &self.up).map(drop)?)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let y = swiglu::forward(&self.gate, &self.up)?;
        on_device(&y)?;
        let [gate, up, y] = [&self.gate, &self.up, &y].map(Host::of);
        let mut pairs = Vec::new();
        for row in sample(y.rows(), COMPARED) {
            let operands = gate.row(row).iter().zip(up.row(row));
            let wanted = operands.map(|(&g, &u)| f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u));
            pairs.extend(y.row(row).iter().copied().zip(wanted));
        }
        Ok(Some(relative(pairs)))
    }
}
