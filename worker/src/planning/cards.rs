//! What cards can do, from their makers' tables.

use model::Precision;

use super::measured::Measured;

/// A card that jobs are planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name in job files.
    pub name: &'static str,
    /// What makers' names of it have among their words.
    pub marks: &'static [&'static str],
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
    Card { name: "h200", marks: &["H200"], memory: 141 * 1_000_000_000, f32_tflops: 67.0, bf16_tflops: 989.4 },
    Card { name: "h100", marks: &["H100"], memory: 80 * GIB, f32_tflops: 67.0, bf16_tflops: 989.4 },
    Card { name: "a100-80g", marks: &["A100", "80GB"], memory: 80 * GIB, f32_tflops: 19.5, bf16_tflops: 312.0 },
    Card { name: "a100-40g", marks: &["A100", "40GB"], memory: 40 * GIB, f32_tflops: 19.5, bf16_tflops: 312.0 },
    Card { name: "l40s", marks: &["L40S"], memory: 48 * GIB, f32_tflops: 91.6, bf16_tflops: 362.1 },
    Card { name: "l4", marks: &["L4"], memory: 24 * GIB, f32_tflops: 30.3, bf16_tflops: 121.0 },
    Card { name: "a10", marks: &["A10"], memory: 24 * GIB, f32_tflops: 31.2, bf16_tflops: 125.0 },
    Card { name: "rtx4090", marks: &["RTX", "4090"], memory: 24 * GIB, f32_tflops: 82.6, bf16_tflops: 165.2 },
    Card { name: "rtx3090", marks: &["RTX", "3090"], memory: 24 * GIB, f32_tflops: 35.6, bf16_tflops: 71.0 },
];

/// Operations a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// In training.
    pub training: f64,
    /// In scoring.
    pub scoring: f64,
    /// Whether earlier runs were so fast, or this is assumed.
    pub measured: bool,
}

impl Rates {
    /// What was measured, unless nothing was trained. A training too short for a validation has scored as it has learnt.
    #[must_use]
    pub fn of(measured: &Measured) -> Option<Self> {
        let training = measured.training_rate()?;
        Some(Self { training, scoring: measured.scoring_rate().unwrap_or(training), measured: true })
    }
}

/// The share of the peak that is assumed where nothing was measured.
pub const ASSUMED_SHARE: f64 = 0.6;

/// The memory that a driver and its libraries take, beside what error correction takes of some cards.
const RESERVED: u64 = GIB;
/// The part of a card's memory that error correction may take.
const CORRECTION: u64 = 16;

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
        (self.memory - self.memory / CORRECTION).saturating_sub(RESERVED)
    }
}
