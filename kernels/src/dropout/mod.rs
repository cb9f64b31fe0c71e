//! Dropout whose mask is computed, not stored.
//!
//! Whether an element is kept is a pure function of (seed, site, row key, column). So the backward pass is the same call
//! on the gradient, a recomputed layer sees the same mask, and neither batch nor device nor worker changes it.

mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// Names one mask of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// The seed of the run.
    pub seed: u64,
    /// The place in the network: every dropout layer has its own.
    pub site: u32,
    /// The share of elements that are set to zero, in `[0, 1)`.
    pub rate: f32,
}

/// Sets a random share of the elements to zero and scales the others by `1 / (1 - rate)`, in place.
///
/// What is dropped becomes zero whatever it was, NaN and infinities too; the others stay what they are.
///
/// # Shapes
/// - `x`: `[n, d]` f32 or bf16
/// - `row_keys`: `n` keys, for example made from epoch, example and position; equal keys give equal masks
///
/// # Gradient
/// The same call on `dy` gives `dx`.
///
/// # Errors
/// [`Error::Setting`] for a rate outside of `[0, 1)`; [`Error::Shape`] if keys and rows differ in number;
/// [`Error::Dtype`] unless `x` is of one of these dtypes.
///
/// # Source
/// Srivastava et al., 2014. The row key is mixed with seed and site by the finaliser of splitmix64, each column by two
/// rounds of a 32-bit finaliser keyed with that.
pub fn apply(x: &mut Tensor, mask: &Mask, row_keys: &[u64]) -> Result<()> {
    const OP: &str = "dropout::apply";
    if !(0.0..1.0).contains(&mask.rate) {
        return Err(Error::Setting { op: OP, what: format!("the rate is {}, allowed is 0 <= rate < 1", mask.rate) });
    }
    x.expect_floats(OP, "x")?;
    if row_keys.len() != x.rows() {
        return Err(Error::shape(OP, "row_keys", &[row_keys.len()], format!("[{}]", x.rows())));
    }
    if mask.rate == 0.0 {
        return Ok(());
    }
    if let Some(on) = Stream::of(OP, &[("x", x)])? {
        return cuda::apply(&on, x, mask, row_keys);
    }
    if x.dtype() == Dtype::Bf16 {
        let mut wide = x.cast(Dtype::F32)?;
        apply(&mut wide, mask, row_keys)?;
        *x = wide.to_bf16();
        return Ok(());
    }
    let cols = x.cols();
    cpu::apply(x.f32_mut()?, cols, mask, row_keys);
    Ok(())
}

impl Mask {
    /// An element is dropped if its 32 random bits are below this.
    fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }

    /// What kept elements are multiplied with.
    fn scale(&self) -> f32 {
        1.0 / (1.0 - self.rate)
    }

    /// What is added to every row's key: seed and site, mixed.
    fn stream(&self) -> u64 {
        splitmix64(self.seed ^ u64::from(self.site).wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// The two 32-bit keys of a row.
    fn row(&self, row_key: u64) -> [u32; 2] {
        let bits = splitmix64(self.stream().wrapping_add(row_key));
        [bits as u32, (bits >> 32) as u32]
    }
}

/// One output of splitmix64 (Steele, Lea and Flood, 2014) for a given state.
fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
