//! Initial parameters, as a pure function of (seed, name, index).
//!
//! No generator runs through the parameters: adding or reordering one leaves the values of the others alone.

use kernels::Tensor;

use super::{config::LruRecConfig, names};
use crate::{Result, params::Params};

/// Standard deviation of the normal distribution, which is cut at two of them.
const DEVIATION: f64 = 0.02;
/// The ring in which |λ| is drawn.
const RING: [f64; 2] = [0.8, 0.99];

/// Draws all parameters.
///
/// # Errors
/// [`crate::Error::Kernel`] never, as shapes and values are made together.
pub(super) fn init(config: &LruRecConfig, seed: u64) -> Result<Params> {
    names::shapes(config)
        .into_iter()
        .map(|(name, shape)| {
            let stream = Stream::new(seed, &name);
            let len: usize = shape.iter().product();
            let values = if name.ends_with(names::PARAMS_LOG) {
                recurrence(&stream, shape[1])
            } else if name.ends_with("layer_norm.weight") {
                vec![1.0; len]
            } else if name.ends_with("layer_norm.bias") {
                vec![0.0; len]
            } else {
                (0..len as u64).map(|i| (DEVIATION * stream.truncated_normal(i)) as f32).collect()
            };
            Ok((name, Tensor::from_f32(&shape, values)?))
        })
        .collect()
}

/// log ν, log θ and log γ: λ uniform in area over the ring, γ such that the state keeps the variance of the input.
fn recurrence(stream: &Stream, state: usize) -> Vec<f32> {
    let [low, high] = RING.map(|r| r * r);
    let square = |s: usize| low + stream.uniform(2 * s as u64) * (high - low); // |λ|²
    let angle = |s: usize| std::f64::consts::TAU * stream.uniform(2 * s as u64 + 1);
    let nu = (0..state).map(|s| (-0.5 * square(s).ln()).ln());
    let theta = (0..state).map(|s| angle(s).ln());
    let gamma = (0..state).map(|s| 0.5 * (1.0 - square(s)).ln());
    nu.chain(theta).chain(gamma).map(|v| v as f32).collect()
}

/// The random numbers of one parameter, by index.
struct Stream {
    key: u64,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name.
        let hash =
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        Self { key: mix(mix(seed) ^ hash) }
    }

    /// Uniform in (0, 1).
    fn uniform(&self, index: u64) -> f64 {
        let bits = mix(self.key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal between -2 and 2: draws until one falls inside.
    fn truncated_normal(&self, index: u64) -> f64 {
        let own = Self { key: mix(self.key ^ mix(index)) };
        let mut draw = 0;
        loop {
            // Box and Muller, 1958.
            let radius = (-2.0 * own.uniform(draw).ln()).sqrt();
            let z = radius * (std::f64::consts::TAU * own.uniform(draw + 1)).cos();
            if z.abs() <= 2.0 {
                return z;
            }
            draw += 2;
        }
    }
}

/// The finaliser of splitmix64.
pub(super) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
