//! The definition, number by number.

/// What a pixel of a picture is, `[n, height, width, 3]`, to patches.
pub(super) fn patches(
    [n, height, width, side]: [usize; 4],
    pixel: impl Fn(usize, usize, usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = Vec::new();
    for picture in 0..n {
        for (top, left) in (0..height / side).flat_map(|i| (0..width / side).map(move |j| (i * side, j * side))) {
            for channel in 0..3 {
                for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                    out.push(pixel(picture, top + y, left + x, channel));
                }
            }
        }
    }
    out
}
