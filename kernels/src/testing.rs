//! What the tests of all operations share: values without a pattern, finite differences, thread counts.

use crate::{Device, Dtype, Tensor};

/// Values between -1 and 1 that look random and depend on `seed` only.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for _ in 0..8 {
        next();
    }
    (0..n).map(|_| next()).collect()
}

/// A tensor of [`noise`].
pub(crate) fn noise_tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape, noise(seed, shape.iter().product())).expect("as many values as the shape has")
}

/// The largest difference of two equally long lists, relative to the size of the wanted values (at least 1).
pub(crate) fn largest_error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(&f, &w)| (f64::from(f) - w).abs() / w.abs().max(1.0)).fold(0.0, f64::max)
}

/// Checks a gradient against central differences of `loss` around `at`, in every coordinate or, of many, every few.
pub(crate) fn check_gradient(what: &str, at: &Tensor, gradient: &Tensor, mut loss: impl FnMut(&Tensor) -> f64) {
    let values = at.to_f32();
    let stride = (values.len() / 40).max(1);
    for i in (0..values.len()).step_by(stride) {
        let step = 5e-3;
        let mut moved = |by: f32| {
            let mut shifted = values.clone();
            shifted[i] += by;
            loss(&Tensor::from_f32(at.shape(), shifted).expect("the same shape"))
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let found = f64::from(gradient.to_f32()[i]);
        let error = (found - numeric).abs() / numeric.abs().max(1.0);
        assert!(error < 4e-3, "{what}[{i}]: {found} against {numeric} by differences");
    }
}

/// The weighted sum of a tensor's values, with weights from [`noise`]: a loss whose gradient is those weights.
pub(crate) fn weighted_sum(seed: u64, tensor: &Tensor) -> f64 {
    let weights = noise(seed, tensor.len());
    tensor.to_f32().iter().zip(&weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
}

/// Asserts that `work` gives the same result on one thread and on three.
pub(crate) fn same_on_threads<T: PartialEq + std::fmt::Debug + Send>(work: impl Fn() -> T + Sync) {
    let one = Device::cpu(1).expect("one thread starts").run(&work);
    let three = Device::cpu(3).expect("three threads start").run(&work);
    assert!(one == three, "the number of threads changed the result");
}

/// Where kernels are proven: on the CPU, every launch in two orders, or on the card that `MLLM4REC_TEST_DEVICE=cuda` asks for.
pub(crate) fn accelerator() -> Device {
    match std::env::var("MLLM4REC_TEST_DEVICE").as_deref() {
        Ok("cuda") => Device::cuda(0, 2).expect("the card that was asked for opens"),
        _ => Device::proving().expect("the emulator starts"),
    }
}

/// As far as two values of bfloat16 may lie apart that were rounded from nearly the same, relative to their size.
pub(crate) const BF16: f64 = 1.0 / 128.0;

/// The values of a tensor in bfloat16, and the same as floats.
pub(crate) fn narrow_and_wide(tensor: &Tensor) -> [Tensor; 2] {
    let narrow = tensor.to_bf16();
    let wide = narrow.cast(Dtype::F32).expect("floats are made of bfloat16");
    [narrow, wide]
}

/// Asserts that a result on a device is that of the host: of the same shape and type, and so near to it relative to the size
/// of the wanted values (at least 1).
pub(crate) fn near(found: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert!(found.stream().is_some() && wanted.stream().is_none(), "a device is compared with the host");
    assert_eq!((found.shape(), found.dtype()), (wanted.shape(), wanted.dtype()));
    let wide: Vec<f64> = wanted.to_f32().iter().map(|&v| f64::from(v)).collect();
    let error = largest_error(&found.to_f32(), &wide);
    let exact = wanted.dtype() == Dtype::U8 && error > 0.0;
    assert!(error <= tolerance && !exact, "{error:e} of {:?} {:?}", wanted.shape(), wanted.dtype());
}
