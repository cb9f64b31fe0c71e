//! What shapes lie on: pale paper, and on it a pattern in a darker tone.

use super::canvas::Canvas;
use crate::demo::rng::Rng;

/// Cream, sky, mint, rose, lilac and pearl; of each the paper and the marks on it.
const PAPERS: [[[f32; 3]; 2]; 6] = [
    [[250.0, 244.0, 228.0], [234.0, 216.0, 176.0]],
    [[232.0, 242.0, 251.0], [188.0, 215.0, 240.0]],
    [[234.0, 247.0, 234.0], [190.0, 226.0, 192.0]],
    [[251.0, 237.0, 240.0], [243.0, 200.0, 211.0]],
    [[241.0, 237.0, 251.0], [209.0, 198.0, 238.0]],
    [[242.0, 243.0, 242.0], [206.0, 209.0, 208.0]],
];

/// Covers the canvas.
pub(super) fn paint(canvas: &mut Canvas, pattern: &str, rng: &mut Rng) {
    let light = rng.between(0.97, 1.01);
    let [pale, marked] = PAPERS[rng.index(PAPERS.len())].map(|paper| paper.map(|c| (c * light).min(255.0) as u8));
    let (right, down) = (rng.between(0.0, 32.0), rng.between(0.0, 32.0));
    let marks = Marks::new(pattern, rng);
    canvas.paint(|x, y| if marks.has(x + right, y + down) { marked } else { pale });
}

/// The dark places of a pattern. Lengths are in pixels.
enum Marks {
    None,
    Stripes { along: (f32, f32), period: f32 },
    Dots { period: f32 },
    Checks { side: f32 },
    Waves { period: f32, length: f32 },
}

impl Marks {
    fn new(pattern: &str, rng: &mut Rng) -> Self {
        const SLANT: f32 = std::f32::consts::FRAC_1_SQRT_2;
        match pattern {
            "plain" => Self::None,
            "stripes" => {
                let along = [(1.0, 0.0), (0.0, 1.0), (SLANT, SLANT), (SLANT, -SLANT)][rng.index(4)];
                Self::Stripes { along, period: rng.between(8.0, 11.0) }
            }
            "dots" => Self::Dots { period: rng.between(8.0, 10.5) },
            "checks" => Self::Checks { side: rng.between(7.0, 9.5) },
            "waves" => Self::Waves { period: rng.between(9.5, 12.0), length: rng.between(15.0, 19.0) },
            _ => unreachable!("every pattern of the word list is printed: a test goes through them"),
        }
    }

    fn has(&self, x: f32, y: f32) -> bool {
        match *self {
            Self::None => false,
            Self::Stripes { along: (a, b), period } => fraction((x * a + y * b) / period) < 0.42,
            Self::Dots { period } => {
                // Every other row is moved by half a step.
                let row = (y / period).floor();
                let dx = fraction(x / period + 0.5 * row) - 0.5;
                let dy = y / period - row - 0.5;
                dx * dx + dy * dy < 0.085
            }
            Self::Checks { side } => fraction(0.5 * ((x / side).floor() + (y / side).floor())) > 0.25,
            Self::Waves { period, length } => fraction((y + 3.2 * wave(x / length)) / period) < 0.36,
        }
    }
}

/// What is left above the next lower whole number.
fn fraction(x: f32) -> f32 {
    x - x.floor()
}

/// A sine's looks, made of parabolas: up and down once while `t` grows by one.
fn wave(t: f32) -> f32 {
    let t = 2.0 * fraction(t);
    if t < 1.0 { 4.0 * t * (1.0 - t) } else { -4.0 * (t - 1.0) * (2.0 - t) }
}
