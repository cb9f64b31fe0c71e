//! The figures of the NF4 bench, as a table and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{Case, Path};
use crate::figures::{Ratio, Spread};
use crate::machine::Machine;

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    pub(super) rows: Vec<Row>,
}

/// One case. The ratio says how many times longer bitsandbytes takes.
#[derive(Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    case: Case,
    ours_ms: Spread,
    theirs_ms: Spread,
    ratio: Ratio,
    /// What we compute: decoded values, or multiplications and additions, in units of 10⁹ a second.
    rate: f64,
}

impl Row {
    pub(super) fn new(case: Case, ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Self {
        let (ours_ms, theirs_ms) = (Spread::of(ours.concat()), Spread::of(theirs.concat()));
        let values = (case.d_out * case.d_in) as f64;
        let work = if case.path == Path::Dequantize { values } else { 2.0 * values * case.rows as f64 };
        Self { case, ours_ms, theirs_ms, ratio: Ratio::of(theirs, ours), rate: work / ours_ms.median / 1e6 }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{} rounds in turn; median (quartiles); ratios with the least and most of the rounds\n",
            self.rounds
        )?;
        writeln!(
            f,
            "| path | dtype | weight | rows | threads | mllm4rec, ms | bitsandbytes, ms | × ours | 10⁹/s |\n\
             |---|---|---|---|---|---|---|---|---|"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Case { path, dtype, d_out, d_in, rows, threads } = self.case;
        let time = |s: &Spread| format!("{:.2} ({:.2} {:.2})", s.median, s.low, s.high);
        write!(
            f,
            "| {path:?} | {dtype:?} | {d_out} × {d_in} | {rows} | {threads} | {} | {} | {} | {:.1} |",
            time(&self.ours_ms),
            time(&self.theirs_ms),
            self.ratio,
            self.rate
        )
    }
}
