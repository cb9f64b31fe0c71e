//! Small readings of text that several formats share.

use crate::input::Reason;
use crate::prepare::spool::Time;

pub(super) const WRONG_FIELDS: Reason = "wrong number of fields";
pub(super) const BAD_RATING: Reason = "rating is not a number";
pub(super) const BAD_TIME: Reason = "time is not a number";

/// Microseconds of a second.
pub(super) const SECOND: i64 = 1_000_000;

pub(super) fn rating(text: &str) -> Result<f64, Reason> {
    text.trim().parse().ok().filter(|r: &f64| r.is_finite()).ok_or(BAD_RATING)
}

pub(super) fn seconds(text: &str) -> Result<Time, Reason> {
    text.trim().parse().ok().and_then(|s| Time::from_units(s, SECOND)).ok_or(BAD_TIME)
}

/// `None` for a text without a visible character.
pub(super) fn not_blank(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.trim().is_empty())
}
