#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{noise_tensor, same_on_threads};

const HYPER: Hyper = Hyper { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-9, weight_decay: 0.01 };

#[test]
fn the_first_step_by_hand() {
    let mut p = Tensor::from_f32(&[2], vec![1.0, -2.0]).unwrap();
    let g = Tensor::from_f32(&[2], vec![0.5, -4.0]).unwrap();
    let mut state = Moments::zeros(&[2]);
    step(&mut p, &g, &mut state, &HYPER, 1, 1.0).unwrap();
    // The first step moves by the learning rate against the sign of the gradient, after the decay.
    let p = p.f32().unwrap();
    assert!((p[0] - (1.0 - 1e-5 - 1e-3)).abs() < 1e-6 && (p[1] - (-2.0 + 2e-5 + 1e-3)).abs() < 1e-6, "{p:?}");
    assert!((state.m.f32().unwrap()[0] - 0.05).abs() < 1e-8);
    assert!((state.v.f32().unwrap()[0] - 0.00025).abs() < 1e-10);
}

/// The textbook formulas in double precision.
fn by_the_book(mut p: f64, grads: &[f64], scale: f64) -> f64 {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in grads.iter().enumerate() {
        let g = g * scale;
        p -= 1e-3 * 0.01 * p;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        let t = t as i32 + 1;
        p -= 1e-3 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-9);
    }
    p
}

#[test]
fn ten_steps_follow_the_book_on_awkward_sizes() {
    for n in [0, 1, 17, 16 * 1024 + 3] {
        let start = noise_tensor(1, &[n]);
        let grads: Vec<Tensor> = (0..10).map(|t| noise_tensor(10 + t, &[n])).collect();
        let (mut p, mut state) = (start.clone(), Moments::zeros(&[n]));
        for (t, g) in grads.iter().enumerate() {
            step(&mut p, g, &mut state, &HYPER, t as u64 + 1, 0.25).unwrap();
        }
        for i in (0..n).step_by((n / 100).max(1)) {
            let gs: Vec<f64> = grads.iter().map(|g| f64::from(g.f32().unwrap()[i])).collect();
            let wanted = by_the_book(f64::from(start.f32().unwrap()[i]), &gs, 0.25);
            let found = f64::from(p.f32().unwrap()[i]);
            assert!((found - wanted).abs() < 5e-7, "element {i}: {found}, wanted {wanted}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    same_on_threads(|| {
        let (mut p, mut state) = (noise_tensor(1, &[50_001]), Moments::zeros(&[50_001]));
        step(&mut p, &noise_tensor(2, &[50_001]), &mut state, &HYPER, 3, 0.5).unwrap();
        (p, state)
    });
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let (mut p, g) = (Tensor::zeros(&[2, 3]), Tensor::zeros(&[3, 2]));
    let error = step(&mut p, &g, &mut Moments::zeros(&[2, 3]), &HYPER, 1, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "adamw::step: grad has shape [3, 2], expected [2, 3]");
}
