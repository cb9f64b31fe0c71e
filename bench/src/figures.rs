//! Medians, their spread, and how they are printed.

use std::fmt::Display;

use anyhow::Result;
use serde::Serialize;

/// Prints a report as tables; or as one JSON object, and the tables to standard error.
pub(crate) fn print(report: &(impl Serialize + Display), json: bool) -> Result<()> {
    if json {
        eprintln!("{report}");
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// The middle and the spread of some measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    /// Quartiles.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How many measurements there were.
    pub(crate) n: usize,
}

impl Spread {
    /// Of at least one measurement.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
        Self { median: at(0.5), min: at(0.0), low: at(0.25), high: at(0.75), n: values.len() }
    }
}

/// A ratio of two contestants: that of the medians, and the least and largest of the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ratio {
    /// How many times longer `theirs` took than `ours`, round by round.
    pub(crate) fn of(theirs: &[Vec<f64>], ours: &[Vec<f64>]) -> Self {
        let median = |rounds: &[Vec<f64>]| Spread::of(rounds.concat()).median;
        let rounds = theirs.iter().zip(ours).map(|(t, o)| Spread::of(t.clone()).median / Spread::of(o.clone()).median);
        let (least, most) = rounds.fold((f64::INFINITY, 0.0f64), |(least, most), r| (least.min(r), most.max(r)));
        Self { median: median(theirs) / median(ours), least, most }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}× [{:.1} {:.1}]", self.median, self.least, self.most)
    }
}
