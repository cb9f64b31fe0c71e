//! Lines in the audit log about connections that were refused: who knocks a thousand times must not fill the disk.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

/// Lines within [`WINDOW`]; what is more is counted.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// Refused connections.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// Leaves a line, or counts where there were many.
    pub(crate) fn tell(&self, address: SocketAddr, reason: &dyn Display) {
        let goes = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        match goes {
            Some(0) => info!(target: "audit", %address, %reason, "connection refused"),
            Some(before) => {
                info!(target: "audit", %address, %reason, before, "connection refused, as others were before")
            }
            None => {}
        }
    }
}

impl Window {
    /// Whether a line is due now, with the number of those before it that had none.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.told) = (Some(now), 0);
        }
        if self.told == LINES {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_counted_and_told_later() {
        let (mut window, now) = (Window::default(), Instant::now());
        let lines = (0..1000).filter(|_| window.admit(now) == Some(0)).count();
        assert_eq!(lines, LINES as usize);
        assert_eq!(window.admit(now + WINDOW / 2), None);
        assert_eq!(window.admit(now + WINDOW), Some(1001 - u64::from(LINES)));
        assert_eq!(window.admit(now + WINDOW), Some(0));
    }
}
