//! The rotation as a product of complex numbers, in double precision.

pub(super) fn rotate(x: &[f32], positions: &[u32], frequencies: &[f32], heads: usize) -> Vec<f64> {
    let half = frequencies.len();
    let mut y = vec![0.0; x.len()];
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for (i, &frequency) in frequencies.iter().enumerate() {
                let at = (row * heads + head) * 2 * half + i;
                let (re, im) = (f64::from(x[at]), f64::from(x[at + half]));
                let (sin, cos) = (f64::from(position) * f64::from(frequency)).sin_cos();
                y[at] = re * cos - im * sin;
                y[at + half] = re * sin + im * cos;
            }
        }
    }
    y
}
