//! What cards can do, from their makers' tables.

/// A card that jobs are planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name in job files.
    pub name: &'static str,
    /// Bytes of memory.
    pub memory: u64,
    /// Dense products of bfloat16, peak, in 10¹² operations a second.
    pub peak_tflops: f64,
}

const GIB: u64 = 1 << 30;

/// The cards that are known.
pub const CARDS: [Card; 9] = [
    Card { name: "h200", memory: 141 * 1_000_000_000, peak_tflops: 989.0 },
    Card { name: "h100", memory: 80 * GIB, peak_tflops: 989.0 },
    Card { name: "a100-80g", memory: 80 * GIB, peak_tflops: 312.0 },
    Card { name: "a100-40g", memory: 40 * GIB, peak_tflops: 312.0 },
    Card { name: "l40s", memory: 48 * GIB, peak_tflops: 362.0 },
    Card { name: "l4", memory: 24 * GIB, peak_tflops: 121.0 },
    Card { name: "a10", memory: 24 * GIB, peak_tflops: 125.0 },
    Card { name: "rtx4090", memory: 24 * GIB, peak_tflops: 165.0 },
    Card { name: "rtx3090", memory: 24 * GIB, peak_tflops: 71.0 },
];

/// The share of the peak that is assumed where nothing was measured.
pub const ASSUMED_SHARE: f64 = 0.4;

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
