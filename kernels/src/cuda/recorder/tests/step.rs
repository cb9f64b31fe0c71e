//! Steps of training, of operations that there are.

use super::Watched;
use crate::cuda::{Recording, Stream};
use crate::testing::{accelerator, noise_tensor};
use crate::{Result, Tensor, gemm, layer_norm, lora};

const WIDTH: usize = 5;
const OUT: usize = 4;
const RANK: usize = 2;

/// A layer norm and a linear layer with a low-rank update.
struct Layer {
    norm: [Tensor; 2],
    d_norm: [Tensor; 2],
    weight: Tensor,
    a: Tensor,
    b: Tensor,
}

impl Layer {
    fn new(put: impl Fn(Tensor) -> Tensor) -> Self {
        let pair = |seed| [seed, seed + 1].map(|seed| put(noise_tensor(seed, &[WIDTH])));
        Self {
            norm: pair(1),
            d_norm: pair(3),
            weight: put(noise_tensor(5, &[OUT, WIDTH])),
            a: put(noise_tensor(6, &[RANK, WIDTH])),
            b: put(noise_tensor(7, &[OUT, RANK])),
        }
    }

    /// Descends on half the sum of squares of the outputs; returns them and the gradient of the input. `eps` stands for an
    /// argument that changes every time.
    fn step(&mut self, x: &Tensor, eps: f32) -> Result<[Tensor; 2]> {
        let x = x.beside(&self.weight)?;
        let (normed, saved) = layer_norm::forward(&x, &self.norm[0], &self.norm[1], eps)?;
        let mut y = gemm::linear(&normed, &self.weight, None)?;
        let inner = lora::forward(&normed, &self.a, &self.b, 0.5, &mut y)?;
        let mut d_normed = gemm::linear_backward_input(&y, &self.weight)?;
        let [mut da, mut db] = [self.a.zeros_like()?, self.b.zeros_like()?];
        let through = lora::backward(&y, &normed, &inner, &self.a, &self.b, 0.5, &mut da, &mut db)?;
        gemm::add_linear(1.0, &through, &identity(&through)?, &mut d_normed)?;
        gemm::add_weight_gradient(-0.01, &y, &normed, &mut self.weight)?;
        gemm::add_linear(-0.01, &da, &identity(&da)?, &mut self.a)?;
        gemm::add_linear(-0.01, &db, &identity(&db)?, &mut self.b)?;
        let [d_weight, d_bias] = &mut self.d_norm;
        let dx = layer_norm::backward(&d_normed, &x, &saved, &self.norm[0], d_weight, d_bias)?;
        Ok([y, dx])
    }

    fn all(&self) -> Vec<Vec<f32>> {
        let all = self.norm.iter().chain(&self.d_norm).chain([&self.weight, &self.a, &self.b]);
        all.map(Tensor::to_f32).collect()
    }
}

/// For sums by products: `y + d · Iᵀ`.
fn identity(beside: &Tensor) -> Result<Tensor> {
    let n = beside.cols();
    Tensor::from_f32(&[n, n], (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect())?.beside(beside)
}

fn batch(seed: usize, rows: usize) -> Tensor {
    noise_tensor(100 + seed as u64, &[rows, WIDTH])
}

/// A layer on a device, and one beside it whose steps are never recorded.
fn layers(on: &Stream) -> [Layer; 2] {
    [(); 2].map(|()| Layer::new(|tensor| tensor.to_device(on).unwrap()))
}

fn read(step: Result<[Tensor; 2]>) -> Result<[Vec<f32>; 2]> {
    Ok(step?.map(|tensor| tensor.to_f32()))
}

#[test]
fn replayed_steps_are_plain_steps_bit_by_bit() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let [mut replayed, mut plain] = layers(&on);
    let mut recording = Recording::default();
    for i in 0..6 {
        let (x, eps) = (batch(i, 7), 1e-3 * i as f32);
        watched.asked();
        let found = on.replayed(&mut recording, || read(replayed.step(&x, eps))).unwrap();
        let asked = watched.asked();
        assert_eq!(found, read(plain.step(&x, eps)).unwrap());
        assert_eq!(replayed.all(), plain.all());
        if i > 0 {
            // All uploads of the step travel as one.
            assert_eq!((asked.operations, asked.allocations, asked.writes), (0, 0, 1));
            assert_eq!(asked.graphs, usize::from(i == 1));
        }
    }
    assert_eq!((recording.recorded(), recording.replayed(), recording.difference()), (1, 5, None));
}

#[test]
fn other_shapes_are_recorded_anew() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let [mut replayed, mut plain] = layers(&on);
    let mut recording = Recording::default();
    let mut used = Vec::new();
    for (i, rows) in [3, 3, 9, 9, 9, 1, 3, 3, 0, 0].into_iter().enumerate() {
        let x = batch(i, rows);
        let found = on.replayed(&mut recording, || read(replayed.step(&x, 1e-5))).unwrap();
        assert_eq!(found, read(plain.step(&x, 1e-5)).unwrap());
        assert_eq!(replayed.all(), plain.all());
        used.push(watched.device.used());
    }
    assert_eq!((recording.recorded(), recording.replayed()), (5, 5));
    // What only the larger one needs goes with it.
    assert!(used[2] > used[0] && used[5] < used[2], "{used:?}");
    let difference = recording.difference().unwrap();
    assert!(difference.contains("bytes are asked for where 60 were"), "{difference}");
}

#[test]
fn results_that_are_kept_are_right() {
    let on = Watched::new(1 << 20).stream();
    let [mut replayed, mut plain] = layers(&on);
    let mut recording = Recording::default();
    let mut kept = Vec::new();
    for i in 0..8 {
        let x = batch(i, 3);
        let found = on.replayed(&mut recording, || replayed.step(&x, 1e-5)).unwrap();
        kept.push((found, read(plain.step(&x, 1e-5)).unwrap()));
        if i % 3 == 2 {
            kept.remove(0);
        }
    }
    for (found, wanted) in kept {
        assert_eq!(found.map(|tensor| tensor.to_f32()), wanted);
    }
    assert_eq!(replayed.all(), plain.all());
}

#[test]
fn results_that_are_dropped_before_the_next_step_do_not_hinder_it() {
    let on = Watched::new(1 << 20).stream();
    let [mut replayed, mut plain] = layers(&on);
    let mut recording = Recording::default();
    for i in 0..4 {
        let x = batch(i, 3);
        let found = on.replayed(&mut recording, || replayed.step(&x, 1e-5)).unwrap();
        assert_eq!(found.map(|tensor| tensor.to_f32()), read(plain.step(&x, 1e-5)).unwrap());
    }
    assert_eq!((recording.recorded(), recording.replayed()), (1, 3));
}

#[test]
fn memory_does_not_grow_and_comes_back() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let [mut layer, _] = layers(&on);
    let before = watched.device.used();
    let mut recording = Recording::default();
    let mut used = Vec::new();
    for i in 0..51 {
        let x = batch(i, 3);
        on.replayed(&mut recording, || read(layer.step(&x, 1e-5))).unwrap();
        used.push(watched.device.used());
    }
    assert!(used[0] > before && used.iter().all(|&bytes| bytes == used[0]), "{used:?}");
    assert_eq!(recording.replayed(), 50);
    drop(recording);
    assert_eq!(watched.device.used(), before);
}

#[test]
fn a_device_replays_what_is_asked_of_it_and_the_host_has_nothing_to() {
    let device = accelerator();
    let [mut replayed, mut plain] = [(); 2].map(|()| Layer::new(|tensor| device.put(&tensor).unwrap()));
    let mut recording = Recording::default();
    for i in 0..5 {
        let x = batch(i, 7);
        let found = device.replayed(&mut recording, || read(replayed.step(&x, 1e-5))).unwrap();
        assert_eq!(found, read(plain.step(&x, 1e-5)).unwrap());
        assert_eq!(replayed.all(), plain.all());
    }
    assert_eq!((recording.recorded(), recording.replayed(), recording.difference()), (1, 4, None));

    let (host, mut layer) = (crate::Device::cpu(1).unwrap(), Layer::new(|tensor| tensor));
    let mut recording = Recording::default();
    for i in 0..2 {
        host.replayed(&mut recording, || read(layer.step(&batch(i, 7), 1e-5))).unwrap();
    }
    assert_eq!((recording.recorded(), recording.replayed()), (0, 0));
}
