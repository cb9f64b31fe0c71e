//! What cards can do, from their makers' tables.

/// A card that jobs are planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name in job files.
    pub name: &'static str,
    /// Bytes of memory.
    pub memory: u64,
    /// Products of 32-bit floats, peak, in 10¹² operations a second: the ranker's operands are in f32 so far.
    pub peak_tflops: f64,
}

const GIB: u64 = 1 << 30;

/// The cards that are known.
pub const CARDS: [Card; 9] = [
    Card { name: "h200", memory: 141 * 1_000_000_000, peak_tflops: 67.0 },
    Card { name: "h100", memory: 80 * GIB, peak_tflops: 67.0 },
    Card { name: "a100-80g", memory: 80 * GIB, peak_tflops: 19.5 },
    Card { name: "a100-40g", memory: 40 * GIB, peak_tflops: 19.5 },
    Card { name: "l40s", memory: 48 * GIB, peak_tflops: 91.6 },
    Card { name: "l4", memory: 24 * GIB, peak_tflops: 30.3 },
    Card { name: "a10", memory: 24 * GIB, peak_tflops: 31.2 },
    Card { name: "rtx4090", memory: 24 * GIB, peak_tflops: 82.6 },
    Card { name: "rtx3090", memory: 24 * GIB, peak_tflops: 35.6 },
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

    /// Bytes that a job may use.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.memory.saturating_sub(RESERVED)
    }
}
