//! One row after the other, in double precision.

/// Sums `dy` by id into a fresh table.
pub(super) fn scatter(dy: &[f32], ids: &[u32], d: usize, rows: usize) -> Vec<f64> {
    let mut table = vec![0.0; rows * d];
    for (row, &id) in dy.chunks_exact(d).zip(ids) {
        for (sum, v) in table[id as usize * d..][..d].iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    table
}
