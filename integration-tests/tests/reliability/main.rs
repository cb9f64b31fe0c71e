//! A cluster of real processes, and everything that can happen to them: killed at random, killed in every gap, stopped for a
//! while, without a store, without space, with a wrong clock. Whatever it is, the rows are those of an undisturbed run.
//!
//! Short versions run by default, the long ones with `MLLM4REC_FULL=1`, which `cargo xtask check --full` sets; `--nocapture`
//! shows their figures.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod bucket;
mod clocks;
mod cluster;
mod disk;
mod failpoints;
mod gangs;
mod kills;
mod oracle;
mod outage;
mod population;
mod quarantine;
mod random;
mod zombies;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: each of them fills the machine, and measures what silence means.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of two sizes: of every check, and of the long loops.
fn sized<T>(short: T, full: T) -> T {
    if std::env::var_os("MLLM4REC_FULL").is_some_and(|v| v == "1") { full } else { short }
}
