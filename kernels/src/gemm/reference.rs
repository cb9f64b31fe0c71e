//! The obvious triple loop.

/// `a [m, k] · b [k, n]`, summed in double precision.
pub(crate) fn matmul(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut c = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            c.push((0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum());
        }
    }
    c
}

/// The rows of a matrix as columns.
pub(crate) fn transpose(a: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| a[i * cols + j])).collect()
}
