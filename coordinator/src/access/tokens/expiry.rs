//! When a token ends.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::value::{Datetime, Offset};

/// A moment as RFC 3339 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(SystemTime);

impl Expiry {
    /// That many days from `now`.
    #[must_use]
    pub fn in_days(now: SystemTime, days: u32) -> Self {
        Self(now + Duration::from_secs(u64::from(days) * 24 * 60 * 60))
    }

    /// Whether the moment is over.
    #[must_use]
    pub fn is_past(&self, now: SystemTime) -> bool {
        now >= self.0
    }

    /// Takes a date with a time and an offset; without one of them the moment would be a matter of opinion.
    fn of(written: &Datetime) -> Option<Self> {
        let (date, time, offset) = (written.date?, written.time?, written.offset?);
        let ahead = match offset {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes),
        };
        let utc = humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok()?;
        let minutes = Duration::from_secs(ahead.unsigned_abs() * 60);
        let moment = if ahead < 0 { utc.checked_add(minutes) } else { utc.checked_sub(minutes) };
        moment.map(Self)
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_seconds(self.0))
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written: Datetime = self.to_string().parse().map_err(serde::ser::Error::custom)?;
        written.serialize(serializer)
    }
}

/// TOML's own date and time, or the same as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Moment(Datetime),
    Text(String),
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let moment = match Written::deserialize(deserializer)? {
            Written::Moment(written) => Self::of(&written),
            Written::Text(text) => text.parse().ok().and_then(|written| Self::of(&written)),
        };
        moment.ok_or_else(|| serde::de::Error::custom("expires must be like 2027-01-31T00:00:00Z"))
    }
}
