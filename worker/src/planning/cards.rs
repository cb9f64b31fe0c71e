//! What cards can do, from their makers' tables.

use model::Precision;

/// A card that jobs are planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name in job files.
    pub name: &'static str,
    /// Bytes of memory.
    pub memory: u64,
    /// Products of 32-bit floats, peak, in 10¹² operations a second.
    pub f32_tflops: f64,
    /// Those of bfloat16 that are summed in f32, of dense matrices.
    pub bf16_tflops: f64,
}

const GIB: u64 = 1 << 30;

/// The cards that are known.
pub const CARDS: [Card; 9] = [
    Card { name: "h200", memory: 141 * 1_000_000_000, f32_tflops: 67.0, bf16_tflops: 989.4 },
    Card { name: "h100", memory: 80 * GIB, f32_tflops: 67.0, bf16_tflops: 989.4 },
    Card { name: "a100-80g", memory: 80 * GIB, f32_tflops: 19.5, bf16_tflops: 312.0 },
    Card { name: "a100-40g", memory: 40 * GIB, f32_tflops: 19.5, bf16_tflops: 312.0 },
    Card { name: "l40s", memory: 48 * GIB, f32_tflops: 91.6, bf16_tflops: 362.1 },
    Card { name: "l4", memory: 24 * GIB, f32_tflops: 30.3, bf16_tflops: 121.0 },
    Card { name: "a10", memory: 24 * GIB, f32_tflops: 31.2, bf16_tflops: 125.0 },
    Card { name: "rtx4090", memory: 24 * GIB, f32_tflops: 82.6, bf16_tflops: 165.2 },
    Card { name: "rtx3090", memory: 24 * GIB, f32_tflops: 35.6, bf16_tflops: 71.0 },
];

/// The share of the peak that is assumed where nothing was measured.
pub const ASSUMED_SHARE: f64 = 0.6;

/// The memory that a driver and its libraries take.
const RESERVED: u64 = GIB;

impl Card {
    /// The card of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        CARDS.into_iter().find(|card| card.name.eq_ignore_ascii_case(name))
    }

    /// Products of floats of a precision, peak, in 10¹² operations a second.
    #[must_use]
    pub fn peak_tflops(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.f32_tflops,
            Precision::Bf16 => self.bf16_tflops,
        }
    }

    /// Bytes that a job may use.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.memory.saturating_sub(RESERVED)
    }
}
