//! The device against the host.

use super::super::fused::{self, Cutting};
use super::super::plan::{Cut, Plan, items};
use super::super::{cuda, scan};
use super::*;
use crate::Device;
use crate::testing::{accelerator, near};

/// Sequences that end within, at and behind the ends of tiles and chunks.
const LENGTHS: [usize; 8] = [0, 1, 63, 64, 0, 65, 257, 600];

/// Weights, input and the gradient of the output; the gradients of the weights begin with noise.
struct Case {
    segments: Segments,
    x: Tensor,
    dy: Tensor,
    weights: Owned,
    grads: Owned,
}

impl Case {
    fn new(lengths: &[usize], d: usize, state: usize) -> Self {
        let segments = Segments::from_lengths(lengths.iter().copied());
        let shape = [segments.rows(), d];
        let weights = Owned::new(state, d);
        let grads = Owned(std::array::from_fn(|i| noise_tensor(40 + i as u64, weights.0[i].shape())));
        Self { segments, x: noise_tensor(1, &shape), dy: noise_tensor(2, &shape), weights, grads }
    }

    fn on(&self, device: &Device) -> Self {
        let put = |t: &Tensor| device.put(t).unwrap();
        let [weights, grads] = [&self.weights, &self.grads].map(|owned| Owned(owned.0.each_ref().map(put)));
        Self { segments: self.segments.clone(), x: put(&self.x), dy: put(&self.dy), weights, grads }
    }

    /// Result and gradients of the layer as `forward` says.
    fn run_with(
        mut self,
        forward: impl Fn(&Tensor, &Weights<'_>, &Segments) -> Result<(Tensor, Saved)>,
    ) -> Vec<Tensor> {
        let weights = self.weights.weights();
        let (y, saved) = forward(&self.x, &weights, &self.segments).unwrap();
        let dx = backward(&self.dy, &self.x, &saved, &weights, &self.segments, &mut self.grads.grads()).unwrap();
        [y, dx].into_iter().chain(self.grads.0).collect()
    }

    fn run(self) -> Vec<Tensor> {
        self.run_with(forward)
    }
}

/// Asserts that results are the host's, up to rounding relative to the largest value of each.
fn same(found: &[Tensor], case: Case) {
    for (i, (found, wanted)) in found.iter().zip(case.run()).enumerate() {
        let scale = wanted.to_f32().iter().fold(1.0f32, |most, v| most.max(v.abs()));
        let found = found.to_host().unwrap();
        let scaled = |t: &Tensor| t.to_f32().iter().map(|&v| f64::from(v) / f64::from(scale)).collect::<Vec<_>>();
        let found: Vec<f32> = scaled(&found).iter().map(|&v| v as f32).collect();
        let error = largest_error(&found, &scaled(&wanted));
        assert!(error < 4e-6, "{error:e} of tensor {i}, {:?}", wanted.shape());
    }
}

/// Runs the layer by products and the recurrence alone.
fn in_steps(case: Case, cut: Cut) -> Vec<Tensor> {
    case.run_with(|x, weights, segments| cuda::forward_in_steps(&x.stream().unwrap(), x, weights, segments, cut))
}

/// Runs the fused layer.
fn in_one(case: Case, cutting: Cutting) -> Vec<Tensor> {
    case.run_with(|x, weights, segments| fused::forward(&x.stream().unwrap(), x, weights, segments, cutting))
}

#[test]
fn in_steps_a_device_agrees_with_the_host() {
    let device = accelerator();
    let short = Cut { join: 64, chunk: 256, tile: 256 };
    for (lengths, d, state, cut) in [
        (&LENGTHS[..], 5, 7, short),
        (&LENGTHS, 4, 36, Cut { join: 256, chunk: 512, tile: 512 }),
        (&[1100, 3], 2, 4, short),
        (&[3, 0, 7], 1, 1, short),
        (&[0], 3, 2, short),
        (&[], 3, 2, short),
    ] {
        let case = || Case::new(lengths, d, state);
        same(&in_steps(case().on(&device), cut), case());
    }
    // And as the shapes decide.
    let case = || Case::new(&[200, 900], 3, 6);
    same(&case().on(&device).run(), case());
}

#[test]
fn in_one_kernel_a_device_agrees_with_the_host() {
    let device = accelerator();
    let rows = |join, chunk| Cut { join, chunk, tile: 64 };
    for (lengths, d, state, cutting) in [
        (&LENGTHS[..], 16, 16, Cutting { rows: rows(64, 256), whole: false }),
        (&LENGTHS, 16, 48, Cutting { rows: rows(256, 256), whole: true }),
        (&[1500, 70, 4], 32, 16, Cutting { rows: rows(64, 256), whole: true }),
        (&[5, 0, 130, 1, 2, 3], 48, 80, Cutting { rows: rows(64, 1024), whole: false }),
        (&[40, 30, 70, 9], 64, 128, Cutting { rows: rows(256, 256), whole: true }),
        (&[], 16, 32, Cutting { rows: rows(64, 256), whole: false }),
    ] {
        let case = || Case::new(lengths, d, state);
        same(&in_one(case().on(&device), cutting), case());
    }
    let case = || Case::new(&[6, 90], 64, 128);
    same(&case().on(&device).run(), case());
}

#[test]
fn more_items_than_bands_agree_with_the_host() {
    let device = accelerator();
    let lengths = vec![1; 300];
    let case = || Case::new(&lengths, 16, 16);
    let rows = Cut { join: 1, chunk: 256, tile: 64 };
    same(&in_one(case().on(&device), Cutting { rows, whole: false }), case());
    same(&in_steps(case().on(&device), Cut { tile: 256, ..rows }), case());
}

#[test]
fn the_recurrence_alone_agrees_with_the_host() {
    let device = accelerator();
    for state in [6, 40] {
        let segments = Segments::from_lengths(LENGTHS);
        let v = [1, 2].map(|seed| noise_tensor(seed, &[segments.rows(), state]));
        let [params_log, ..] = Owned::new(state, 1).0;
        let on_device = v.each_ref().map(|part| device.put(part).unwrap());
        let found = scan(on_device.each_ref(), &device.put(&params_log).unwrap(), &segments).unwrap();
        let wanted = scan(v.each_ref(), &params_log, &segments).unwrap();
        found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 3e-6));
    }
}

#[test]
fn the_same_input_gives_the_same_bits_on_a_device() {
    let device = accelerator();
    for (d, state) in [(16, 16), (3, 5)] {
        let run = || {
            let results = Case::new(&[300, 2, 700, 50], d, state).on(&device).run();
            results.iter().map(|t| t.to_host().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn what_is_no_number_stays_in_its_sequence_on_a_device() {
    let device = accelerator();
    for d in [16, 3] {
        let mut case = Case::new(&[70, 300, 40], d, 16);
        // In the midst of the second sequence.
        case.x.f32_mut().unwrap()[200 * d] = f32::NAN;
        case.dy.f32_mut().unwrap()[200 * d] = f32::INFINITY;
        let rows = Cut { join: 64, chunk: 256, tile: 64 };
        let case = case.on(&device);
        let results = if d == 16 {
            in_one(case, Cutting { rows, whole: true })
        } else {
            in_steps(case, Cut { tile: 256, ..rows })
        };
        let finite = |t: &Tensor, row: usize| t.to_f32()[row * d..(row + 1) * d].iter().all(|v| v.is_finite());
        let [y, dx] = [&results[0], &results[1]].map(|t| t.to_host().unwrap());
        for row in 0..410 {
            assert_eq!(finite(&y, row), !(200..370).contains(&row), "row {row} of the result");
            assert_eq!(finite(&dx, row), !(70..=200).contains(&row), "row {row} of the gradient");
        }
        assert!(
            results[2..].iter().any(|t| t.to_f32().iter().any(|v| v.is_nan())),
            "it reaches the weights' gradients"
        );
    }
}

#[test]
fn infinite_logarithms_mean_the_same_on_a_device() {
    let device = accelerator();
    for d in [16, 3] {
        let case = || {
            let mut case = Case::new(&[5, 70], d, 16);
            let logs = case.weights.0[0].f32_mut().unwrap();
            (logs[1], logs[2 * 16 + 2]) = (f32::INFINITY, f32::NEG_INFINITY);
            // The gradient of log ν is infinity times nothing there, on both.
            case
        };
        let found: Vec<Tensor> = case().on(&device).run();
        let wanted = case().run();
        near(&found[0], &wanted[0], 1e-5);
        near(&found[1], &wanted[1], 1e-5);
    }
}

#[test]
fn operands_elsewhere_are_refused_by_name() {
    let device = accelerator();
    let case = Case::new(&[3, 4], 16, 16);
    let there = case.on(&device);
    let error = forward(&there.x, &case.weights.weights(), &case.segments).unwrap_err().to_string();
    assert_eq!(error, format!("lru_scan::forward: params_log is on the host, expected on {}", device.name()));
    let [mut mixed, weights] = [Owned(there.grads.0.clone()), Owned(there.weights.0.clone())];
    mixed.0[7] = case.grads.0[7].clone();
    let (_, saved) = forward(&there.x, &weights.weights(), &case.segments).unwrap();
    let call = |saved: &Saved, grads: &mut Owned| {
        backward(&there.dy, &there.x, saved, &weights.weights(), &case.segments, &mut grads.grads())
            .unwrap_err()
            .to_string()
    };
    let error = call(&saved, &mut mixed);
    assert_eq!(error, format!("lru_scan::backward: grads.out_bias_re is on the host, expected on {}", device.name()));
    let (_, on_host) = forward(&case.x, &case.weights.weights(), &case.segments).unwrap();
    let error = call(&on_host, &mut Owned(there.grads.0.clone()));
    assert_eq!(error, format!("lru_scan::backward: saved is on the host, expected on {}", device.name()));
}

#[test]
fn other_shapes_than_the_forward_had_are_refused_on_a_device() {
    let device = accelerator();
    let case = Case::new(&[2], 16, 16).on(&device);
    let (_, saved) = forward(&case.x, &case.weights.weights(), &case.segments).unwrap();
    let mut three = Case::new(&[3], 16, 16).on(&device);
    let weights = three.weights.weights();
    let error = backward(&three.dy, &three.x, &saved, &weights, &three.segments, &mut three.grads.grads()).unwrap_err();
    assert_eq!(error.to_string(), "lru_scan::backward: saved has shape [2, 16], expected [3, 16]");
    let mut wide = Case::new(&[2], 80, 16).on(&device);
    let weights = wide.weights.weights();
    let error = backward(&wide.dy, &wide.x, &saved, &weights, &wide.segments, &mut wide.grads.grads()).unwrap_err();
    assert!(error.to_string().contains("expected what the forward of 80 inputs keeps"), "{error}");
}

#[test]
fn work_covers_every_row_once_within_its_bounds() {
    for seed in 0..200 {
        let values = noise(seed, 40);
        let lengths: Vec<usize> =
            values[..seed as usize % 40].iter().map(|v| (v.abs().powi(3) * 900.0) as usize).collect();
        let segments = Segments::from_lengths(lengths.iter().copied());
        for (join, chunk, tile) in [(64, 256, 64), (256, 256, 64), (64, 1024, 64), (1, 256, 256), (64, 512, 512)] {
            let cut = Cut { join, chunk, tile };
            let found = items(&segments, cut);
            assert!(found.len() <= cut.items(segments.rows(), segments.len()), "{lengths:?} {cut:?}");
            let (mut row, mut slot) = (0, 0);
            for item in &found {
                assert!((item.first, item.slot) == (row, slot) && (1..=chunk).contains(&item.rows), "{item:?}");
                assert!(item.behind == 0 || item.rows == chunk, "{item:?}");
                let starts = segments.ranges().any(|range| !range.is_empty() && range.start == row);
                assert_eq!(starts, !item.goes_on, "{item:?}");
                row += item.rows;
                slot += item.rows.div_ceil(tile);
            }
            assert_eq!(row, segments.rows());
            assert!(slot <= cut.slots(segments.rows(), segments.len()));
        }
    }
}

#[test]
fn what_is_uploaded_is_as_long_for_other_lengths() {
    let on = accelerator().put(&Tensor::zeros(&[1])).unwrap().stream().unwrap();
    let cut = Cutting::of(3000).rows;
    let plan = |lengths: [usize; 4]| Plan::new(&on, &Segments::from_lengths(lengths), cut).unwrap();
    let (even, uneven) = (plan([750; 4]), plan([1, 2, 2996, 1]));
    assert_eq!(even.bounds(), uneven.bounds());
    assert!(even != uneven && even == plan([750; 4]));
}
