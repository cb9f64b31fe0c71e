//! Errors against float64.

use kernels::Tensor;

/// The norm of the differences, relative to that of what is wanted.
pub(super) fn relative(pairs: impl IntoIterator<Item = (f32, f64)>) -> f64 {
    let [mut off, mut size] = [0.0; 2];
    for (found, wanted) in pairs {
        off += (f64::from(found) - wanted).powi(2);
        size += wanted * wanted;
    }
    (off / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// A few of `n` places, far apart and never in step with a tile.
pub(super) fn sample(n: usize, most: usize) -> Vec<usize> {
    let step = (n / most.max(1)).max(1);
    (0..n.min(most)).map(|i| i * step + i % step).collect()
}

/// Values of a tensor as they were before they were put on a device, widened.
pub(super) struct Host {
    values: Vec<f32>,
    cols: usize,
}

impl Host {
    /// Of a tensor in any place.
    pub(super) fn of(tensor: &Tensor) -> Self {
        Self { values: tensor.to_f32(), cols: tensor.cols() }
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }

    pub(super) fn at(&self, row: usize, col: usize) -> f32 {
        self.values[row * self.cols + col]
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }
}

/// The sum of products in float64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The error of a product `[n, m]` on a sample, with the wanted value by row and column.
pub(super) fn of_product(found: &Host, wanted: impl Fn(usize, usize) -> f64) -> f64 {
    const MOST: usize = 16;
    let places = sample(found.rows(), MOST).into_iter().flat_map(|row| {
        let cols = sample(found.cols(), MOST);
        cols.into_iter().map(move |col| (row, col))
    });
    relative(places.map(|(row, col)| (found.at(row, col), wanted(row, col))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_places_and_errors_are_relative() {
        for n in [1, 7, 16, 17, 4096] {
            let places = sample(n, 16);
            assert!(
                places.len() == n.min(16) && places.is_sorted() && places.iter().all(|&i| i < n),
                "{n}: {places:?}"
            );
        }
        assert!((relative([(3.0, 3.0), (4.0, 5.0)]) - 1.0 / 34f64.sqrt()).abs() < 1e-12);
    }
}
