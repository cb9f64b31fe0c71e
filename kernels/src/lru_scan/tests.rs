#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{check_gradient, largest_error, noise, noise_tensor, same_on_threads, weighted_sum};

mod device;

/// The parameters as owned tensors, in the order of the fields.
struct Owned([Tensor; 8]);

impl Owned {
    fn new(state: usize, d: usize) -> Self {
        // |λ| between 0.8 and 0.99, some angles, γ between 0.2 and 0.6.
        let u = noise(20, 3 * state);
        let between = |u: f32, low: f32, high: f32| low + (u + 1.0) / 2.0 * (high - low);
        let nu = u[..state].iter().map(|&u| (-between(u, 0.8, 0.99).ln()).ln());
        let theta = u[state..2 * state].iter().map(|&u| between(u, 0.1, 3.0).ln());
        let gamma = u[2 * state..].iter().map(|&u| between(u, 0.2, 0.6).ln());
        let params_log = Tensor::from_f32(&[3, state], nu.chain(theta).chain(gamma).collect()).unwrap();
        Self([
            params_log,
            noise_tensor(21, &[state, d]),
            noise_tensor(22, &[state, d]),
            noise_tensor(23, &[state]),
            noise_tensor(24, &[state]),
            noise_tensor(25, &[d, state]),
            noise_tensor(26, &[d, state]),
            noise_tensor(27, &[d]),
        ])
    }

    fn weights(&self) -> Weights<'_> {
        let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = &self.0;
        Weights { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re }
    }

    fn zeros_like(&self) -> Self {
        Self(self.0.each_ref().map(|t| Tensor::zeros(t.shape())))
    }

    fn grads(&mut self) -> Grads<'_> {
        let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = &mut self.0;
        Grads { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re }
    }

    fn with(&self, i: usize, tensor: &Tensor) -> Self {
        let mut tensors = self.0.clone();
        tensors[i] = tensor.clone();
        Self(tensors)
    }
}

#[test]
fn a_real_recurrence_by_hand() {
    // λ = 1/2 at angle ~0, γ = 1, B = C = 1: y_t = x_t + y_{t-1} / 2.
    let one = || Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let zero = || Tensor::zeros(&[1, 1]);
    let log = Tensor::from_f32(&[3, 1], vec![2.0f32.ln().ln(), -60.0, 0.0]).unwrap();
    let flat = |t: Tensor| t.reshaped(&[1]).unwrap();
    let owned = Owned([log, one(), zero(), flat(zero()), flat(zero()), one(), zero(), flat(zero())]);
    let x = Tensor::from_f32(&[4, 1], vec![1.0, 1.0, 1.0, 8.0]).unwrap();
    let (y, _) = forward(&x, &owned.weights(), &Segments::from_lengths([3, 1])).unwrap();
    assert!(largest_error(y.f32().unwrap(), &[1.0, 1.5, 1.75, 8.0]) < 1e-6);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (lengths, d, state) in
        [(vec![], 3, 6), (vec![1], 1, 2), (vec![0, 3, 0, 1], 5, 7), (vec![70, 1, 2, 64, 13], 8, 16)]
    {
        let segments = Segments::from_lengths(lengths);
        let (x, owned) = (noise_tensor(1, &[segments.rows(), d]), Owned::new(state, d));
        let (y, _) = forward(&x, &owned.weights(), &segments).unwrap();
        let wanted = reference::forward(&x, &owned.weights(), &segments);
        assert!(largest_error(y.f32().unwrap(), &wanted) < 1e-5);
    }
}

#[test]
fn every_gradient_agrees_with_finite_differences() {
    let (d, state) = (3, 5);
    let segments = Segments::from_lengths([4, 1, 6]);
    let (x, owned) = (noise_tensor(1, &[11, d]), Owned::new(state, d));
    let dy = noise_tensor(2, &[11, d]);
    let loss = |x: &Tensor, w: &Owned| weighted_sum(2, &forward(x, &w.weights(), &segments).unwrap().0);
    let (_, saved) = forward(&x, &owned.weights(), &segments).unwrap();
    let mut grads = owned.zeros_like();
    let dx = backward(&dy, &x, &saved, &owned.weights(), &segments, &mut grads.grads()).unwrap();
    check_gradient("x", &x, &dx, |x| loss(x, &owned));
    let names = ["params_log", "in_re", "in_im", "in_bias_re", "in_bias_im", "out_re", "out_im", "out_bias_re"];
    for (i, name) in names.into_iter().enumerate() {
        check_gradient(name, &owned.0[i], &grads.0[i], |t| loss(&x, &owned.with(i, t)));
    }
}

#[test]
fn sequences_do_not_see_each_other() {
    let (d, state) = (4, 8);
    let owned = Owned::new(state, d);
    let x = noise_tensor(1, &[9, d]);
    let (both, _) = forward(&x, &owned.weights(), &Segments::from_lengths([5, 4])).unwrap();
    let last = Tensor::from_f32(&[4, d], x.f32().unwrap()[5 * d..].to_vec()).unwrap();
    let (alone, _) = forward(&last, &owned.weights(), &Segments::from_lengths([4])).unwrap();
    let alone: Vec<f64> = alone.f32().unwrap().iter().map(|&v| f64::from(v)).collect();
    assert!(largest_error(&both.f32().unwrap()[5 * d..], &alone) < 1e-6);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (d, state) = (16, 32);
    let segments = Segments::from_lengths((0..60).map(|i| i % 23));
    let (owned, x) = (Owned::new(state, d), noise_tensor(1, &[segments.rows(), d]));
    let dy = noise_tensor(2, x.shape());
    same_on_threads(|| {
        let (y, saved) = forward(&x, &owned.weights(), &segments).unwrap();
        let mut grads = owned.zeros_like();
        let dx = backward(&dy, &x, &saved, &owned.weights(), &segments, &mut grads.grads()).unwrap();
        (y, dx, grads.0)
    });
}

#[test]
fn rows_and_segments_must_agree() {
    let owned = Owned::new(2, 3);
    let error = forward(&noise_tensor(1, &[4, 3]), &owned.weights(), &Segments::from_lengths([3])).unwrap_err();
    assert!(error.to_string().contains("3 rows, as the segments have"), "{error}");
}
