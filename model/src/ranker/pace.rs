//! How fast a ranker is at work.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Floating-point operations, as [`super::Footprint`] counts them, and the seconds that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Operations that were of use: none that memory made necessary.
    pub flops: f64,
    /// Seconds.
    pub seconds: f64,
}

/// What a ranker has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Paces {
    /// Gradients.
    pub training: Pace,
    /// Scores.
    pub scoring: Pace,
}

/// Counts it, but for the first gradients and the first scores, which are slower than any others.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    paces: Paces,
    /// Whether anything was trained, or scored, before.
    warm: [bool; 2],
}

impl Meter {
    pub(crate) fn read(&self) -> Paces {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).paces
    }

    pub(crate) fn trained(&self, flops: f64, since: Instant) {
        self.add(flops, since, |counted| (&mut counted.paces.training, &mut counted.warm[0]));
    }

    pub(crate) fn scored(&self, flops: f64, since: Instant) {
        self.add(flops, since, |counted| (&mut counted.paces.scoring, &mut counted.warm[1]));
    }

    fn add(&self, flops: f64, since: Instant, of: impl FnOnce(&mut Counted) -> (&mut Pace, &mut bool)) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pace, warm) = of(&mut counted);
        if *warm {
            pace.flops += flops;
            pace.seconds += since.elapsed().as_secs_f64();
        }
        *warm |= flops > 0.0;
    }
}
