//! Random normals: what weights and activations look like. Zeros would be faster on a card than any of them.

use std::f64::consts::TAU;

use anyhow::Result;
use data::examples::Rng;
use kernels::Tensor;

/// Values that one thread draws at a time; part of what the values are.
const CHUNK: usize = 1 << 16;
/// Values that a large network's weights are taken from.
const STOCK: usize = 1 << 22;

/// Normals with mean 0, a function of the seed alone.
pub(super) fn normals(seed: u64, n: usize, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0; n];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = n.div_ceil(CHUNK).div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (thread, part) in values.chunks_mut(share * CHUNK).enumerate() {
            scope.spawn(move || {
                for (chunk, part) in part.chunks_mut(CHUNK).enumerate() {
                    fill(Rng::keyed(&[seed, (thread * share + chunk) as u64]), part, deviation);
                }
            });
        }
    });
    values
}

/// Two normals at a time, after Box and Muller.
fn fill(mut rng: Rng, values: &mut [f32], deviation: f32) {
    for pair in values.chunks_mut(2) {
        let radius = f64::from(deviation) * (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
        let (sin, cos) = (TAU * rng.unit()).sin_cos();
        for (value, part) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * part) as f32;
        }
    }
}

/// A tensor of [`normals`] on the host.
pub(super) fn tensor(seed: u64, shape: &[usize], deviation: f32) -> Result<Tensor> {
    Ok(Tensor::from_f32(shape, normals(seed, shape.iter().product(), deviation))?)
}

/// Normals for billions of weights: runs of one stock, each from another place.
pub(super) struct Stock(Vec<f32>);

impl Stock {
    pub(super) fn new(seed: u64) -> Self {
        Self(normals(seed, STOCK, 1.0))
    }

    /// As many values as asked for, scaled and shifted.
    pub(super) fn take(&self, key: u64, n: usize, deviation: f32, mean: f32) -> Vec<f32> {
        let begin = (Rng::keyed(&[key]).next_u64() % STOCK as u64) as usize;
        let mut values = Vec::with_capacity(n);
        values.extend_from_slice(&self.0[begin..][..n.min(STOCK - begin)]);
        while values.len() < n {
            values.extend_from_slice(&self.0[..STOCK.min(n - values.len())]);
        }
        values.iter_mut().for_each(|v| *v = *v * deviation + mean);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_the_moments_of_normals() {
        let values = normals(1, 3 * CHUNK + 7, 2.0);
        let mean = |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / values.len() as f64;
        assert!(mean(1).abs() < 0.03 && (mean(2) - 4.0).abs() < 0.1 && (mean(4) / 48.0 - 1.0).abs() < 0.05);
        assert_eq!(values[..CHUNK], normals(1, CHUNK, 2.0));
        assert_ne!(values[..8], values[CHUNK..CHUNK + 8]);
    }
}
