//! Our operands as variables of candle, and the comparison of results and gradients.

use candle_core::{D, Device, Var, backprop::GradStore};
use mllm4rec_kernels::Tensor;

/// What every test returns: errors of ours and of candle's.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Values between -1 and 1 without a pattern.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // The first few still show how small the seed is.
    std::iter::repeat_with(next).skip(4).take(n).collect()
}

/// An operand: a tensor of ours, and the same values as a variable of candle in double precision.
pub(crate) struct Operand {
    pub(crate) ours: Tensor,
    pub(crate) theirs: Var,
}

impl Operand {
    /// An operand of [`noise`].
    pub(crate) fn noise(seed: u64, shape: &[usize]) -> Outcome<Self> {
        Self::new(shape, noise(seed, shape.iter().product()))
    }

    pub(crate) fn new(shape: &[usize], values: Vec<f32>) -> Outcome<Self> {
        let theirs = Var::from_tensor(&constant(shape, &values)?)?;
        Ok(Self { ours: Tensor::from_f32(shape, values)?, theirs })
    }

    /// Where an operation that adds its gradient begins: a tensor of ones, of which [`Oracle::added`] knows.
    pub(crate) fn ones(&self) -> Outcome<Tensor> {
        Ok(Tensor::from_f32(self.ours.shape(), vec![1.0; self.ours.len()])?)
    }
}

/// Values that candle takes no gradient of.
pub(crate) fn constant(shape: &[usize], values: &[f32]) -> candle_core::Result<candle_core::Tensor> {
    candle_core::Tensor::from_vec(values.iter().map(|&v| f64::from(v)).collect(), shape, &Device::Cpu)
}

/// Softmax over the last dimension, of primitives.
pub(crate) fn softmax(x: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// Candle's results, and its gradients of their sum weighted by `dy`.
pub(crate) struct Oracle {
    /// Which case it is, for messages.
    case: String,
    /// The gradient that the backward pass begins with.
    pub(crate) dy: Tensor,
    y: candle_core::Tensor,
    gradients: GradStore,
    tolerance: f64,
}

impl Oracle {
    /// `terms` is the length of the longest sum in either pass.
    pub(crate) fn new(case: impl std::fmt::Debug, y: candle_core::Tensor, terms: usize) -> Outcome<Self> {
        let dy = noise(99, y.elem_count());
        Self::with_dy(case, y, Tensor::from_f32(&[dy.len()], dy)?, terms)
    }

    /// As [`Oracle::new`] with weights of one's own.
    pub(crate) fn with_dy(
        case: impl std::fmt::Debug,
        y: candle_core::Tensor,
        dy: Tensor,
        terms: usize,
    ) -> Outcome<Self> {
        let dy = dy.reshaped(y.dims())?;
        let gradients = (&y * constant(y.dims(), dy.f32()?)?)?.sum_all()?.backward()?;
        Ok(Self { case: format!("{case:?}"), dy, y, gradients, tolerance: tolerance(terms) })
    }

    /// Compares the result.
    pub(crate) fn result(&self, ours: &Tensor) -> Outcome {
        self.compare("result", ours, 0.0, &self.y)
    }

    /// Compares a gradient that an operation returned.
    pub(crate) fn gradient(&self, what: &str, ours: &Tensor, of: &Operand) -> Outcome {
        self.compare(what, ours, 0.0, self.gradients.get(&of.theirs).ok_or("candle has no such gradient")?)
    }

    /// Compares a gradient that an operation added to [`Operand::ones`].
    pub(crate) fn added(&self, what: &str, ours: &Tensor, of: &Operand) -> Outcome {
        self.compare(what, ours, 1.0, self.gradients.get(&of.theirs).ok_or("candle has no such gradient")?)
    }

    fn compare(&self, what: &str, ours: &Tensor, start: f64, theirs: &candle_core::Tensor) -> Outcome {
        assert_eq!(ours.shape(), theirs.dims(), "{what} of {}", self.case);
        let theirs = theirs.flatten_all()?.to_vec1::<f64>()?;
        let scale = theirs.iter().fold(1.0, |top: f64, v| top.max(v.abs()));
        for (i, (&found, wanted)) in ours.f32()?.iter().zip(theirs).enumerate() {
            let error = (f64::from(found) - start - wanted).abs() / scale;
            assert!(error <= self.tolerance, "{what}[{i}] of {}: {found} - {start}, not {wanted}", self.case);
        }
        Ok(())
    }
}

/// The largest error allowed, relative to the largest value: the roundings of single precision, which add up to about the
/// root of the number of terms, times a few for the operations around the sum.
fn tolerance(terms: usize) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt()
}
