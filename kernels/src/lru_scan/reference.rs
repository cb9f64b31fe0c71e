//! One step of time after the other, in double-precision complex numbers.

use super::Weights;
use crate::{Segments, Tensor};

#[derive(Clone, Copy, Default)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    fn scaled(self, by: f64) -> Self {
        Self { re: self.re * by, im: self.im * by }
    }
}

/// The output of the layer.
pub(super) fn forward(x: &Tensor, w: &Weights<'_>, segments: &Segments) -> Vec<f64> {
    let (d, state) = (x.cols(), w.params_log.cols());
    let log = |row: usize, s: usize| f64::from(at(w.params_log, row, s)).exp();
    let mut y = Vec::new();
    for range in segments.ranges() {
        let mut h = vec![Complex::default(); state];
        for t in range {
            for (s, h) in h.iter_mut().enumerate() {
                let lambda = Complex { re: log(1, s).cos(), im: log(1, s).sin() }.scaled((-log(0, s)).exp());
                let mut v = complex(w.in_bias_re, w.in_bias_im, 0, s);
                for i in 0..d {
                    v = v.plus(complex(w.in_re, w.in_im, s, i).scaled(f64::from(at(x, t, i))));
                }
                *h = lambda.times(*h).plus(v.scaled(log(2, s)));
            }
            for i in 0..d {
                let sum =
                    h.iter().enumerate().map(|(s, &h)| complex(w.out_re, w.out_im, i, s).times(h).re).sum::<f64>();
                y.push(sum + f64::from(at(w.out_bias_re, 0, i)));
            }
        }
    }
    y
}

#[allow(clippy::unwrap_used)]
fn at(tensor: &Tensor, row: usize, col: usize) -> f32 {
    tensor.f32().unwrap()[row * tensor.cols() + col]
}

fn complex(re: &Tensor, im: &Tensor, row: usize, col: usize) -> Complex {
    Complex { re: f64::from(at(re, row, col)), im: f64::from(at(im, row, col)) }
}
