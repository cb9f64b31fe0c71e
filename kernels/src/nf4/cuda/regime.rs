//! Which way a product takes.
//!
//! The numbers are worked out for an H200, from bytes, instructions and the rates of tensor cores; none has been measured. They
//! are to be tuned on a card.

use super::{Pass, few, fused};

/// A way to multiply with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Regime {
    /// Bound by the bytes of the weight: every code is read once and decoded in registers.
    Few,
    /// Decoded in registers on the way to the tensor cores; the terms are cut into `splits` parts, added in order.
    Fused {
        /// Depends on the weight and on how many tiles of 128 tokens there are.
        splits: usize,
    },
    /// Decoded into memory, and multiplied by the device's library.
    Decoded,
}

/// The most rows for which a weight is decoded on the way. Decoding it into memory takes as long as about 250 rows of a
/// product by the library; by mma.sync a row takes about twice as long as there, on cards before Hopper 1.2 times.
const FUSED_MOST: usize = 256;
/// Multiprocessors of the card that splits are chosen for. Others get the same, so that they get the same bits.
const WAVE: usize = 132;
/// The most parts that terms are cut into.
const MOST_SPLITS: usize = 16;
/// What a block of threads takes to begin and to end, in steps of 64 terms (half a microsecond).
const BLOCK_COST: usize = 4;
/// What adding the parts takes to begin, in the same unit.
const ADD_COST: usize = 4;
/// Tiles of one part that are written, read and added in the time of a step.
const TILES_OF_STEP: usize = 16;

impl Regime {
    /// The regime of a product in bfloat16 with a weight of `[d_out, d_in]`.
    pub(super) fn of_bf16(pass: Pass, n: usize, extents: [usize; 2]) -> Self {
        let few = pass == Pass::Forward && n <= few::MOST_BF16 && extents[1].is_multiple_of(few::COLUMNS_BF16);
        match n {
            _ if few => Self::Few,
            0..=FUSED_MOST if can_be_fused(pass, extents) => Self::Fused { splits: splits(n, pass.extents(extents)) },
            _ => Self::Decoded,
        }
    }

    /// The regime of a product in f32.
    pub(super) fn of_f32(pass: Pass, n: usize, [_, d_in]: [usize; 2]) -> Self {
        let few = pass == Pass::Forward && n <= few::MOST_F32 && d_in.is_multiple_of(few::COLUMNS_F32);
        if few { Self::Few } else { Self::Decoded }
    }
}

/// Whether rows of the weight are whole blocks, and rows of what it is multiplied with whole pieces of 16 bytes.
pub(super) fn can_be_fused(pass: Pass, [d_out, d_in]: [usize; 2]) -> bool {
    d_in.is_multiple_of(fused::TERMS) && (pass == Pass::Forward || d_out.is_multiple_of(8))
}

/// How many parts the terms are best cut into: fewer leave multiprocessors idle, more have to be added.
fn splits(n: usize, [outputs, terms]: [usize; 2]) -> usize {
    let tiles = outputs.div_ceil(fused::OUTPUTS) * n.div_ceil(fused::TOKENS);
    let steps = terms.div_ceil(fused::TERMS);
    let cost = |splits: &usize| {
        let waves = (tiles * splits).div_ceil(WAVE);
        let adding = if *splits == 1 { 0 } else { ADD_COST + tiles * splits / TILES_OF_STEP };
        waves * (steps.div_ceil(*splits) + BLOCK_COST) + adding
    };
    (1..=MOST_SPLITS).min_by_key(cost).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: [usize; 2] = [4096, 4096];

    #[test]
    fn rows_decide() {
        let forward = |n| Regime::of_bf16(Pass::Forward, n, SQUARE);
        assert_eq!([1, 16].map(forward), [Regime::Few; 2]);
        assert_eq!([17, 64, 128].map(forward), [Regime::Fused { splits: 4 }; 3]);
        assert!(matches!(forward(FUSED_MOST), Regime::Fused { .. }));
        assert_eq!([FUSED_MOST + 1, 16_384].map(forward), [Regime::Decoded; 2]);
        let backward = |n| Regime::of_bf16(Pass::Backward, n, SQUARE);
        assert_eq!([1, 128].map(backward), [Regime::Fused { splits: 4 }; 2]);
        assert_eq!(backward(FUSED_MOST + 1), Regime::Decoded);
    }

    #[test]
    fn shapes_that_kernels_do_not_take_are_decoded() {
        assert_eq!(Regime::of_bf16(Pass::Forward, 1, [5, 96]), Regime::Decoded);
        assert_eq!(Regime::of_bf16(Pass::Forward, 40, [5, 96]), Regime::Decoded);
        assert!(matches!(Regime::of_bf16(Pass::Forward, 40, [5, 64]), Regime::Fused { .. }));
        assert_eq!(Regime::of_bf16(Pass::Backward, 40, [5, 64]), Regime::Decoded);
        assert!(matches!(Regime::of_bf16(Pass::Backward, 40, [8, 64]), Regime::Fused { .. }));
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32, [5, 96]), Regime::Few);
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32, [5, 97]), Regime::Decoded);
        assert_eq!(Regime::of_f32(Pass::Forward, few::MOST_F32 + 1, [5, 96]), Regime::Decoded);
        assert_eq!(Regime::of_f32(Pass::Backward, 1, [5, 96]), Regime::Decoded);
    }

    #[test]
    fn splits_do_not_depend_on_the_rows_of_a_tile() {
        for extents in [SQUARE, [11_008, 4096], [4096, 11_008], [1, 64], [64, 1 << 20]] {
            let of = |n| splits(n, extents);
            assert!([1, 17, 64, 127].iter().all(|&n| of(n) == of(fused::TOKENS)), "{extents:?}");
            assert!((1..=MOST_SPLITS).contains(&of(1)));
        }
        assert_eq!(splits(1, [128, 64]), 1);
        assert_eq!(splits(1, [128, 1 << 20]), MOST_SPLITS);
    }
}
