#![allow(clippy::unwrap_used)]
use super::*;
use crate::grad_norm::clip;
use crate::testing::{accelerator, near, noise_tensor, same_on_threads};

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

/// Parameters, their gradients and moments that are not at their begin.
#[derive(Clone)]
struct Model {
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    states: Vec<Moments>,
}

/// Sizes of fours and not, of several blocks and of none.
const SIZES: [usize; 9] = [0, 1, 7, 1024, 0, 1025, 4, 3001, 0];

impl Model {
    fn new() -> Self {
        let noise = |seed: u64| SIZES.iter().map(|&n| noise_tensor(seed + n as u64, &[n])).collect::<Vec<_>>();
        let squares = |mut t: Tensor| {
            t.f32_mut().unwrap().iter_mut().for_each(|v| *v *= *v);
            t
        };
        let states = noise(1).into_iter().zip(noise(2)).map(|(m, v)| Moments { m, v: squares(v) }).collect();
        Self { params: noise(3), grads: noise(4), states }
    }

    fn on(&self, device: &crate::Device) -> Self {
        let put = |tensors: &[Tensor]| tensors.iter().map(|t| device.put(t).unwrap()).collect();
        let state = |s: &Moments| Moments { m: device.put(&s.m).unwrap(), v: device.put(&s.v).unwrap() };
        Self { params: put(&self.params), grads: put(&self.grads), states: self.states.iter().map(state).collect() }
    }

    /// Every second parameter is not decayed.
    fn updates<'a>(&'a mut self, hypers: &'a [Hyper; 2]) -> Vec<Update<'a>> {
        let both = self.params.iter_mut().zip(&mut self.states).zip(&self.grads).zip(hypers.iter().cycle());
        both.map(|(((param, state), grad), hyper)| Update { param, grad, state, hyper }).collect()
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.params.iter().chain(self.states.iter().flat_map(|s| [&s.m, &s.v]))
    }
}

const HYPERS: [Hyper; 2] = [HYPER, Hyper { weight_decay: 0.0, ..HYPER }];

#[test]
fn all_at_once_is_one_after_the_other() {
    let (mut together, mut apart) = (Model::new(), Model::new());
    let clipping = clip(&together.grads, Some(0.5)).unwrap();
    let scale = crate::grad_norm::clip_scale(clipping.norm().unwrap(), 0.5);
    step_all(together.updates(&HYPERS), 3, &clipping).unwrap();
    for Update { param, grad, state, hyper } in apart.updates(&HYPERS) {
        step(param, grad, state, hyper, 3, scale).unwrap();
    }
    assert!(together.tensors().eq(apart.tensors()));
    let none: [Update<'_>; 0] = [];
    step_all(none, 1, &clipping).unwrap();
}

#[test]
fn nothing_is_changed_if_one_does_not_fit() {
    let mut model = Model::new();
    let clipping = clip(&model.grads, None).unwrap();
    model.grads[7] = Tensor::zeros(&[3]);
    let error = step_all(model.updates(&HYPERS), 1, &clipping).unwrap_err().to_string();
    assert_eq!(error, "adamw::step_all: grad has shape [3], expected [3001]");
    assert!(model.tensors().eq(Model::new().tensors()));
}

#[test]
fn a_device_has_the_bits_of_the_host() {
    let device = accelerator();
    let mut host = Model::new();
    let mut there = host.on(&device);
    let clipping = clip(&host.grads, Some(0.5)).unwrap();
    for step in [1, 2, 1000] {
        step_all(host.updates(&HYPERS), step, &clipping).unwrap();
        step_all(there.updates(&HYPERS), step, &clipping).unwrap();
    }
    let alone =
        Update { param: &mut there.params[3], grad: &there.grads[3], state: &mut there.states[3], hyper: &HYPER };
    step(alone.param, alone.grad, alone.state, alone.hyper, 4, 0.3).unwrap();
    step(&mut host.params[3], &host.grads[3], &mut host.states[3], &HYPER, 4, 0.3).unwrap();
    for (found, wanted) in there.tensors().zip(host.tensors()) {
        assert!(found.stream().is_some());
        assert_eq!(found.to_le_bytes(), wanted.to_le_bytes(), "{:?}", wanted.shape());
    }
}

#[test]
fn a_device_clips_without_the_host() {
    let device = accelerator();
    let mut host = Model::new();
    let mut there = host.on(&device);
    for step in 1..3 {
        let clipping = clip(&there.grads, Some(0.5)).unwrap();
        step_all(there.updates(&HYPERS), step, &clipping).unwrap();
        let clipping = clip(&host.grads, Some(0.5)).unwrap();
        step_all(host.updates(&HYPERS), step, &clipping).unwrap();
    }
    there.tensors().zip(host.tensors()).for_each(|(found, wanted)| near(found, wanted, 1e-6));
}

#[test]
fn operands_in_different_places_are_named() {
    let device = accelerator();
    let host = Model::new();
    let mut there = host.on(&device);
    let refused =
        |updates: Vec<Update<'_>>, clipping: &Clipping| step_all(updates, 1, clipping).unwrap_err().to_string();
    let on_device = clip(&there.grads, None).unwrap();
    let error = refused(host.clone().updates(&HYPERS), &on_device);
    assert_eq!(error, format!("adamw::step_all: clipping is on {}, expected on the host", device.name()));
    there.states[7].v = host.states[7].v.clone();
    let error = refused(there.updates(&HYPERS), &on_device);
    assert_eq!(error, format!("adamw::step_all: v is on the host, expected on {}", device.name()));
    let moments = Moments::beside(&there.params[7]).unwrap();
    assert!(moments.m.stream().is_some() && moments.v.stream().is_some());
    assert_eq!(moments.m.to_f32(), vec![0.0; 3001]);
}
