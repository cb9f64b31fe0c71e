//! Sizes and shares as people write them: `"4GiB"`, `"1%"`.

/// How many rows of the input may be rejected before a stage fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejected {
    /// A number of rows.
    Rows(u64),
    /// A share of the rows that were read, from 0 to 1.
    Share(f64),
}

impl MaxRejected {
    /// Whether `rejected` of `read` rows are still within the limit.
    #[must_use]
    pub fn allows(self, rejected: u64, read: u64) -> bool {
        match self {
            Self::Rows(limit) => rejected <= limit,
            Self::Share(share) => rejected as f64 <= share * read as f64,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().ok()?;
                (0.0..=100.0).contains(&percent).then_some(Self::Share(percent / 100.0))
            }
            None => text.trim().parse().ok().map(Self::Rows),
        }
    }
}

/// Reads `"512MiB"`, `"4GiB"`, `"2GB"` or a plain number of bytes.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
    ];
    let text = text.trim();
    let (number, unit) =
        UNITS.iter().find_map(|(name, bytes)| text.strip_suffix(name).map(|n| (n, *bytes))).unwrap_or((text, 1));
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number * unit as f64) as u64)
}
