//! Bicubic resampling with the bits of Pillow.

use super::Picture;

/// Bits behind the point of a weight: 32, less 8 of a sample and 2 for the sum of weights, which may pass one.
const PRECISION: u32 = 32 - 8 - 2;

/// The reach of the cubic in source pixels, before it is stretched for shrinking.
const SUPPORT: f64 = 2.0;

/// Resizes to exactly `side` x `side`; the aspect ratio is not kept.
///
/// The cubic has a = -0.5 and is stretched when shrinking, so that every source pixel counts. Each of the two passes rounds
/// to 8 bits. Arithmetic and order of the passes are those of Pillow's `resize(.., BICUBIC)`, and so are the bits.
///
/// # Panics
/// If `side` is zero.
///
/// # Source
/// Pillow 13. Earlier versions always take columns first: tall pictures may then differ by a few steps.
#[must_use]
pub fn resize(picture: &Picture, side: usize) -> Picture {
    assert!(side > 0, "a picture has at least one pixel");
    let (width, height) = (picture.width, picture.height);
    let to_width = Weights::new(width, side);
    let to_height = Weights::new(height, side);
    let rgb = if rows_first(width, height, side) {
        columns(&rows(&picture.rgb, width, &to_height), width, &to_width)
    } else {
        rows(&columns(&picture.rgb, width, &to_width), side, &to_height)
    };
    Picture { width: side, height: side, rgb }
}

/// Pillow 13 takes rows first where that loses more than twice as many of them as there are columns to lose.
fn rows_first(width: usize, height: usize, side: usize) -> bool {
    height.saturating_sub(side) > 2 * width.saturating_sub(side)
}

/// Which source pixels make a target pixel, and how much each counts.
struct Weights {
    /// For each target pixel the first source pixel and where its weights are in `values`.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    /// Fixed point with [`PRECISION`] bits; those of one target pixel add up to about one.
    values: Vec<i32>,
}

impl Weights {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let mut weights = Self { spans: Vec::with_capacity(to), values: Vec::new() };
        for target in 0..to {
            weights.push((target as f64 + 0.5) * scale, stretch, from);
        }
        weights
    }

    /// Adds the weights of the target pixel with this centre, in source pixels.
    fn push(&mut self, centre: f64, stretch: f64, from: usize) {
        let reach = SUPPORT * stretch;
        // Casts cut off, and what is negative becomes zero.
        let first = (centre - reach + 0.5) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let exact: Vec<f64> = (first..end).map(|s| cubic((s as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = exact.iter().sum();
        let begin = self.values.len();
        self.values.extend(exact.iter().map(|w| fixed(w / sum)));
        self.spans.push((first, begin..self.values.len()));
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|(first, range)| (*first, &self.values[range.clone()]))
    }
}

/// Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero.
fn fixed(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (half + weight * f64::from(1 << PRECISION)) as i32
}

fn to_sample(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half a sample: what makes the cut of [`to_sample`] a rounding.
const HALF: i32 = 1 << (PRECISION - 1);

/// `[height, width, 3]` to `[height, weights, 3]`.
fn columns(rgb: &[u8], width: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(rgb.len() / width * weights.spans.len());
    for row in rgb.chunks_exact(width * 3) {
        for (first, values) in weights.each() {
            let mut sum = [HALF; 3];
            for (pixel, &weight) in row[first * 3..].as_chunks::<3>().0.iter().zip(values) {
                for (sum, &sample) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            out.extend(sum.map(to_sample));
        }
    }
    out
}

/// `[height, width, 3]` to `[weights, width, 3]`.
fn rows(rgb: &[u8], width: usize, weights: &Weights) -> Vec<u8> {
    let row_bytes = width * 3;
    let mut out = Vec::with_capacity(row_bytes * weights.spans.len());
    let mut sums = vec![HALF; row_bytes];
    for (first, values) in weights.each() {
        sums.fill(HALF);
        for (row, &weight) in rgb[first * row_bytes..].chunks_exact(row_bytes).zip(values) {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_sample(sum)));
    }
    out
}
