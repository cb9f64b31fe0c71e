//! Which way a product takes.
//!
//! The numbers are worked out for an H200, from bytes, instructions and the rates of tensor cores; none has been measured. They
//! are to be tuned on a card.

use super::{Pass, few};

/// A way to multiply with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Regime {
    /// Bound by the bytes of the weight: every code is read once and decoded in registers.
    Few,
    /// Decoded into memory, and multiplied by the device's library.
    Decoded,
}

impl Regime {
    /// The regime of a product in bfloat16 with a weight of `[d_out, d_in]`.
    pub(super) fn of_bf16(pass: Pass, n: usize, extents: [usize; 2]) -> Self {
        let few = pass == Pass::Forward && n <= few::MOST_BF16 && extents[1].is_multiple_of(few::COLUMNS_BF16);
        if few { Self::Few } else { Self::Decoded }
    }

    /// The regime of a product in f32.
    pub(super) fn of_f32(pass: Pass, n: usize, [_, d_in]: [usize; 2]) -> Self {
        let few = pass == Pass::Forward && n <= few::MOST_F32 && d_in.is_multiple_of(few::COLUMNS_F32);
        if few { Self::Few } else { Self::Decoded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: [usize; 2] = [4096, 4096];

    #[test]
    fn rows_decide() {
        let forward = |n| Regime::of_bf16(Pass::Forward, n, SQUARE);
        assert_eq!([1, 16].map(forward), [Regime::Few; 2]);
        assert_eq!([17, 16_384].map(forward), [Regime::Decoded; 2]);
        assert_eq!(Regime::of_bf16(Pass::Backward, 1, SQUARE), Regime::Decoded);
    }

    #[test]
    fn shapes_that_kernels_do_not_take_are_decoded() {
        assert_eq!(Regime::of_bf16(Pass::Forward, 1, [5, 96]), Regime::Decoded);
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32, [5, 96]), Regime::Few);
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32, [5, 97]), Regime::Decoded);
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32 + 1, [5, 96]), Regime::Decoded);
        assert_eq!(Regime::of_f32(Pass::Backward, 1, [5, 96]), Regime::Decoded);
    }
}
