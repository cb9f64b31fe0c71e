//! Network namespaces, for tests that need several hosts.

use std::process::{Command, Stdio};

/// Calls `ip`.
///
/// # Errors
/// What it complains about.
pub fn ip(args: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(args.split(' ')).stdin(Stdio::null()).output().map_err(|e| format!("ip: {e}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {complaint}")) }
}

/// Nothing, and a word about it, if a network could not be laid.
#[must_use]
pub fn laid(outcome: Result<(), String>) -> Option<()> {
    outcome.map_err(|why| println!("SKIPPED: no network namespaces here ({why}); root and iproute2 are needed")).ok()
}
