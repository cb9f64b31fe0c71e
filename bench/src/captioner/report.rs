//! The figures of the captioner's bench, as a table and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::Float;
use crate::figures::{Ratio, Spread};
use crate::machine::Machine;

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) rows: Vec<Row>,
}

/// One checkpoint with one kind of floats. The ratio says how many times longer transformers takes.
#[derive(Serialize)]
pub(super) struct Row {
    checkpoint: &'static str,
    dtype: Float,
    ours_ms: Spread,
    theirs_ms: Spread,
    ratio: Ratio,
    ours_images_per_s: f64,
    theirs_images_per_s: f64,
    /// The share of pictures with the same tokens.
    same: f64,
}

impl Row {
    pub(super) fn new(
        checkpoint: &'static str,
        dtype: Float,
        batch: usize,
        [ours, theirs]: &[Vec<Vec<f64>>; 2],
        [our_tokens, their_tokens]: &[Vec<Vec<u32>>; 2],
    ) -> Self {
        let (ours_ms, theirs_ms) = (Spread::of(ours.concat()), Spread::of(theirs.concat()));
        let same = our_tokens.iter().zip(their_tokens).filter(|(a, b)| a == b).count() as f64 / batch as f64;
        let speed = |s: &Spread| batch as f64 / s.median * 1e3;
        Self {
            checkpoint,
            dtype,
            ours_images_per_s: speed(&ours_ms),
            theirs_images_per_s: speed(&theirs_ms),
            ratio: Ratio::of(theirs, ours),
            ours_ms,
            theirs_ms,
            same,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{} pictures together, {} threads, {} rounds in turn; median (quartiles); ratios with the least and most of \
             the rounds\n",
            self.batch, self.threads, self.rounds
        )?;
        writeln!(
            f,
            "| checkpoint | dtype | mllm4rec, images/s | transformers, images/s | × ours | mllm4rec, ms | \
             transformers, ms | same tokens |\n|---|---|---|---|---|---|---|---|"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let time = |s: &Spread| format!("{:.0} ({:.0} {:.0})", s.median, s.low, s.high);
        write!(
            f,
            "| {} | {:?} | {:.1} | {:.1} | {} | {} | {} | {:.0} % |",
            self.checkpoint,
            self.dtype,
            self.ours_images_per_s,
            self.theirs_images_per_s,
            self.ratio,
            time(&self.ours_ms),
            time(&self.theirs_ms),
            100.0 * self.same
        )
    }
}
