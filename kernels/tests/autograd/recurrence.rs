//! The linear recurrence, with complex numbers written as pairs of real ones.

use candle_core::Tensor;
use mllm4rec_kernels::Segments;
use mllm4rec_kernels::lru_scan::{self, Grads, Weights};

use crate::oracle::{Operand, Oracle, Outcome, noise};

const NAMES: [&str; 8] =
    ["params_log", "in_re", "in_im", "in_bias_re", "in_bias_im", "out_re", "out_im", "out_bias_re"];

#[test]
fn recurrence_over_packed_sequences() -> Outcome {
    let lengths: [&[usize]; 4] = [&[1], &[4, 0, 1, 6], &[70, 1, 2, 64, 13], &[129]];
    for (lengths, (d, state)) in lengths.into_iter().zip([(1, 1), (3, 5), (8, 17), (33, 20)]) {
        let segments = Segments::from_lengths(lengths.iter().copied());
        let x = Operand::noise(1, &[segments.rows(), d])?;
        let weights = weights(d, state)?;
        let y = step_by_step(&x.theirs, &weights.each_ref().map(|w| w.theirs.as_tensor()), &segments)?;
        // A gradient of a coefficient is a sum over rows of states, which are sums over earlier rows and columns.
        let oracle = Oracle::new((lengths, d, state), y, segments.rows() * d.max(state))?;

        let ours = view(&weights);
        let (y, saved) = lru_scan::forward(&x.ours, &ours, &segments)?;
        oracle.result(&y)?;
        let mut sums = Vec::new();
        for weight in &weights {
            sums.push(weight.ones()?);
        }
        let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = &mut sums[..] else {
            unreachable!("there are eight weights")
        };
        let mut grads = Grads { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re };
        let dx = lru_scan::backward(&oracle.dy, &x.ours, &saved, &ours, &segments, &mut grads)?;
        oracle.gradient("dx", &dx, &x)?;
        for ((name, sums), weight) in NAMES.into_iter().zip(&sums).zip(&weights) {
            oracle.added(name, sums, weight)?;
        }
    }
    Ok(())
}

/// The parameters in the order of [`NAMES`]: |λ| between 0.8 and 0.99, some angles, γ between 0.2 and 0.6.
fn weights(d: usize, state: usize) -> Outcome<[Operand; 8]> {
    let between = |u: f32, low: f32, high: f32| low + (u + 1.0) / 2.0 * (high - low);
    let nu = noise(20, state).into_iter().map(|u| (-between(u, 0.8, 0.99).ln()).ln());
    let theta = noise(21, state).into_iter().map(|u| between(u, 0.1, 3.0).ln());
    let gamma = noise(22, state).into_iter().map(|u| between(u, 0.2, 0.6).ln());
    Ok([
        Operand::new(&[3, state], nu.chain(theta).chain(gamma).collect())?,
        Operand::noise(23, &[state, d])?,
        Operand::noise(24, &[state, d])?,
        Operand::noise(25, &[state])?,
        Operand::noise(26, &[state])?,
        Operand::noise(27, &[d, state])?,
        Operand::noise(28, &[d, state])?,
        Operand::noise(29, &[d])?,
    ])
}

fn view(weights: &[Operand; 8]) -> Weights<'_> {
    let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] =
        weights.each_ref().map(|w| &w.ours);
    Weights { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re }
}

/// `h_t = λ h_{t-1} + γ (B x_t + b)` and `y_t = Re(C h_t + c)` with `λ = exp(-ν + iθ)`.
fn step_by_step(x: &Tensor, weights: &[&Tensor; 8], segments: &Segments) -> candle_core::Result<Tensor> {
    let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = *weights;
    let coefficient = |row: usize| params_log.narrow(0, row, 1)?.exp(); // [1, state]
    let (size, theta, gamma) = (coefficient(0)?.neg()?.exp()?, coefficient(1)?, coefficient(2)?);
    let (lambda_re, lambda_im) = ((&size * theta.cos()?)?, (&size * theta.sin()?)?);
    let input = |w: &Tensor, b: &Tensor| x.matmul(&w.t()?)?.broadcast_add(b)?.broadcast_mul(&gamma);
    let (v_re, v_im) = (input(in_re, in_bias_re)?, input(in_im, in_bias_im)?); // [n, state]

    let mut rows = Vec::new();
    for range in segments.ranges() {
        let (mut re, mut im) = (lambda_re.zeros_like()?, lambda_im.zeros_like()?); // [1, state]
        for t in range {
            let turned_re = ((&lambda_re * &re)? - (&lambda_im * &im)?)?;
            let turned_im = ((&lambda_re * &im)? + (&lambda_im * &re)?)?;
            re = (turned_re + v_re.narrow(0, t, 1)?)?;
            im = (turned_im + v_im.narrow(0, t, 1)?)?;
            rows.push((re.matmul(&out_re.t()?)? - im.matmul(&out_im.t()?)?)?.broadcast_add(out_bias_re)?);
        }
    }
    Tensor::cat(&rows, 0)
}
