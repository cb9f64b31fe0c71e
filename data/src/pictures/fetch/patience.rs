//! How long to wait before the next try.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::artifact::Digest;
use crate::examples::Rng;

/// The pause after the given number of failures: it doubles from `first` up to `longest`, and half of it is drawn by the
/// URL, so that pictures that failed together do not come back together. The same run waits the same again.
pub(super) fn backoff(url: &str, failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let digest = Digest::of_bytes(url.as_bytes());
    let key = u64::from_str_radix(&digest.as_str()[..16], 16).expect("a digest is hex digits");
    doubled.mul_f64(0.5 + 0.5 * Rng::keyed(&[key, u64::from(failures)]).unit())
}

/// How long a server asks to be left alone: a number of seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}
