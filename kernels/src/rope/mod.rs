//! Rotary position embedding: pairs of query and key features are turned by an angle that grows with the position. What is
//! not finite reaches both features of its pair.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use crate::cuda::{Array, Stream};
use crate::{Dtype, Error, Result, Tensor};

const OP: &str = "rope";
/// Above this, neighbouring positions are one and the same 32-bit float.
const MOST_POSITIONS: usize = 1 << 24;

/// How the frequencies of a checkpoint are stretched for contexts longer than the ones it was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// The plain frequencies.
    None,
    /// All positions divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: low frequencies are divided, high ones kept, those between are blended.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` count as low.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` count as high.
        high_freq_factor: f64,
        /// The context length before stretching.
        original_max_positions: f64,
    },
}

/// The rotation of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Features of one head; even.
    pub head_dim: usize,
    /// The base of the geometric row of frequencies.
    pub theta: f64,
    /// Stretching of the frequencies.
    pub scaling: Scaling,
}

/// Cosines and sines of every position, computed once; clones share what devices hold of them.
#[derive(Clone, Debug)]
pub struct Tables {
    half: usize,
    positions: usize,
    cos: Vec<f32>, // [positions, half]
    sin: Vec<f32>, // [positions, half]
    /// Both in the memory of every device that has asked for them.
    uploaded: Arc<Mutex<Vec<(Stream, Uploaded)>>>,
}

/// Cosines and sines in the memory of a device.
type Uploaded = Arc<[Array; 2]>;

impl Tables {
    /// Tables for the positions `0..max_positions`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the head dimension is odd, if a frequency is not finite (of a base or a factor of 0, say), or
    /// for more positions than single precision tells apart.
    pub fn new(config: &Config, max_positions: usize) -> Result<Self> {
        if !config.head_dim.is_multiple_of(2) {
            return Err(Error::Setting { op: OP, what: format!("the head dimension {} is odd", config.head_dim) });
        }
        let frequencies = inverse_frequencies(config);
        if let Some(bad) = frequencies.iter().find(|f| !f.is_finite()) {
            let what = format!("a frequency is {bad}, of theta {} and scaling {:?}", config.theta, config.scaling);
            return Err(Error::Setting { op: OP, what });
        }
        if max_positions > MOST_POSITIONS {
            let what = format!("{max_positions} positions are more than the {MOST_POSITIONS} that f32 tells apart");
            return Err(Error::Setting { op: OP, what });
        }
        // Single precision on purpose: it is what checkpoints were trained with.
        let angles = (0..max_positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (sin, cos) = angles.map(|a| (f64::from(a).sin() as f32, f64::from(a).cos() as f32)).unzip();
        Ok(Self { half: config.head_dim / 2, positions: max_positions, cos, sin, uploaded: Arc::default() })
    }

    /// The number of positions.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Cosines and sines in the memory of a device, copied there when they are first asked for.
    fn on(&self, device: &Stream) -> Result<Uploaded> {
        let mut uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = uploaded.iter().find(|(stream, _)| stream.is(device)) {
            return Ok(Arc::clone(found));
        }
        let copied = Arc::new([device.upload(&self.cos)?, device.upload(&self.sin)?]);
        uploaded.push((device.clone(), Arc::clone(&copied)));
        Ok(copied)
    }
}

/// One frequency for every pair of features, in radians a position.
#[must_use]
pub fn inverse_frequencies(config: &Config) -> Vec<f32> {
    let plain = (0..config.head_dim / 2).map(|i| config.theta.powf(-(2.0 * i as f64) / config.head_dim as f64));
    plain.map(|f| scaled(f, config.scaling) as f32).collect()
}

fn scaled(frequency: f64, scaling: Scaling) -> f64 {
    match scaling {
        Scaling::None => frequency,
        Scaling::Linear { factor } => frequency / factor,
        Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original_max_positions / high_freq_factor {
                frequency
            } else if wavelength > original_max_positions / low_freq_factor {
                frequency / factor
            } else {
                let span = high_freq_factor - low_freq_factor;
                let kept = (original_max_positions / wavelength - low_freq_factor) / span;
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

/// Rotates every head of every row in place; feature `i` is paired with feature `i + head_dim / 2`. Of bfloat16 in f32, rounded
/// once.
///
/// # Shapes
/// - `x`: `[n, heads * head_dim]` f32 or bf16
/// - `positions`: one for every row
///
/// # Gradient
/// [`apply_inverse`] of the gradient: a rotation's transpose is its inverse.
///
/// # Errors
/// [`Error::Shape`] for other widths, [`Error::Index`] for a position beyond the tables; [`Error::Dtype`] unless `x` is of one of
/// these dtypes.
///
/// # Source
/// Su et al., "RoFormer", 2021, in the half-split pairing of the Llama checkpoints.
pub fn apply(x: &mut Tensor, positions: &[u32], tables: &Tables, heads: usize) -> Result<()> {
    rotate(x, positions, tables, heads, 1.0)
}

/// Undoes [`apply`]; also its backward pass. Shapes and errors as there.
pub fn apply_inverse(x: &mut Tensor, positions: &[u32], tables: &Tables, heads: usize) -> Result<()> {
    rotate(x, positions, tables, heads, -1.0)
}

fn rotate(x: &mut Tensor, positions: &[u32], tables: &Tables, heads: usize, direction: f32) -> Result<()> {
    x.expect_floats(OP, "x")?;
    x.expect_dims(OP, "x", &[positions.len(), heads.saturating_mul(2 * tables.half)])?;
    if let Some(&far) = positions.iter().find(|&&p| p as usize >= tables.positions) {
        return Err(Error::Index { op: OP, what: "position", index: far as usize, len: tables.positions });
    }
    if let Some(on) = x.stream() {
        return cuda::rotate(&on, x, positions, tables, heads, direction);
    }
    if x.dtype() == Dtype::Bf16 {
        let mut wide = x.cast(Dtype::F32)?;
        rotate(&mut wide, positions, tables, heads, direction)?;
        *x = wide.to_bf16();
        return Ok(());
    }
    cpu::rotate(x.f32_mut()?, positions, tables, heads, direction);
    Ok(())
}
