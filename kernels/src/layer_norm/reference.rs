//! The formula in double precision.

/// Normalised, scaled and shifted rows.
pub(super) fn forward(x: &[f32], w: &[f32], b: &[f32], eps: f64) -> Vec<f64> {
    let d = w.len();
    x.chunks_exact(d)
        .flat_map(|row| {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d as f64;
            let var = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / d as f64;
            let y = |i: usize| (f64::from(row[i]) - mean) / (var + eps).sqrt() * f64::from(w[i]) + f64::from(b[i]);
            (0..d).map(y).collect::<Vec<_>>()
        })
        .collect()
}
