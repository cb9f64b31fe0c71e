//! Between the generated types and the checked ones.

mod coordinator;
mod gang;
mod status;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A message that breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message without a valid `{0}`")]
pub struct Invalid(pub &'static str);

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sorted<V>(map: HashMap<String, V>) -> BTreeMap<String, V> {
    map.into_iter().collect()
}

fn text(value: String, name: &'static str) -> Result<String, Invalid> {
    if value.is_empty() { Err(Invalid(name)) } else { Ok(value) }
}

fn optional(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}
