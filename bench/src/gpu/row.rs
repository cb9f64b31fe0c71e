//! The figures of one case.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::card::State;
use super::case::Case;
use super::outcome::{Distance, Outcome};
use super::rounds::Measured;
use super::work::{Bound, Ceilings, Work};
use crate::figures::Spread;

/// One case.
#[derive(Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) work: Work,
    /// Ours first.
    pub(super) contestants: Vec<Figures>,
    /// Of the ceiling that is the lower one, for every contestant.
    pub(super) shares: Vec<Option<f64>>,
    pub(super) bound: Option<Bound>,
    /// Right behind the last turn, and before that while it worked without a pause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) card: Vec<State>,
}

/// One contestant of a case.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<Spread>,
    /// By round.
    turns: Vec<f64>,
    /// How many times longer than ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    /// Deviation from a reference, see the table's legend.
    pub(super) error: Option<f64>,
    /// How far what comes out is from what comes out of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_ours: Option<Distance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

impl Figures {
    fn new(measured: Measured, ours: Option<&Outcome>) -> Self {
        let Measured { peer, times, error, outcome, absent, mut failed } = measured;
        let milliseconds = if times.is_empty() { None } else { Some(Spread::of(times.clone())) };
        let name = peer.map_or("mllm4rec", |peer| peer.name());
        let compared = peer.and(outcome.as_ref()).zip(ours).map(|(theirs, ours)| Distance::of(theirs, ours));
        let from_ours = compared.and_then(|found| found.map_err(|why| failed = failed.take().or(Some(why))).ok());
        Self { name, milliseconds, turns: times, ratio: None, error, from_ours, absent, failed }
    }

    pub(super) fn median(&self) -> Option<f64> {
        self.milliseconds.map(|spread| spread.median)
    }

    /// How far it is from a reference, or from ours.
    pub(super) fn deviation(&self) -> Option<String> {
        let error = self.error.map(|error| if error == 0.0 { "0".to_owned() } else { format!("{error:.1e}") });
        error.or_else(|| self.from_ours.map(|distance| distance.to_string()))
    }

    /// The time, or why there is none.
    pub(super) fn time(&self, emulated: bool) -> String {
        match (&self.failed, &self.absent, &self.milliseconds) {
            (Some(why), ..) => format!("failed: {}", one_line(why)),
            (_, Some(why), _) => one_line(why),
            (.., Some(s)) => format!("{} ({} {})", duration(s.median), duration(s.low), duration(s.high)),
            _ if emulated => "ran".to_owned(),
            _ => "no times".to_owned(),
        }
    }
}

impl Row {
    /// Of a case that was measured just now.
    pub(super) fn new(case: &Case, measured: Vec<Measured>, card: Vec<State>) -> Self {
        let outcome = measured.first().and_then(|ours| ours.outcome.clone());
        let figures = measured.into_iter().map(|measured| Figures::new(measured, outcome.as_ref()));
        let mut contestants: Vec<Figures> = figures.collect();
        let ours = contestants.first().and_then(Figures::median);
        for peer in contestants.iter_mut().skip(1) {
            peer.ratio = peer.median().zip(ours).map(|(theirs, ours)| theirs / ours);
        }
        let shares = vec![None; contestants.len()];
        Self { work: case.work(), case: case.clone(), contestants, shares, bound: None, card }
    }

    /// Work of a second, in the unit of the case.
    pub(super) fn rate(&self, milliseconds: f64) -> f64 {
        self.work.amount / milliseconds * 1e3
    }

    pub(super) fn weigh(&mut self, ceilings: &Ceilings) {
        for (share, figures) in self.shares.iter_mut().zip(&self.contestants) {
            let found = figures.median().and_then(|milliseconds| ceilings.share(&self.work, milliseconds));
            *share = found.map(|(share, _)| share);
            self.bound = self.bound.or(found.map(|(_, bound)| bound));
        }
    }

    /// Our part of the row.
    pub(super) fn ours(&self) -> &Figures {
        &self.contestants[0]
    }
}

/// In short, for whoever waits.
impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words = self.contestants.iter().map(|figures| {
            let deviation = figures.deviation().map_or_else(String::new, |off| format!(", deviation {off}"));
            format!("{}: {}{deviation}", figures.name, figures.time(true))
        });
        f.write_str(&words.collect::<Vec<_>>().join("; "))
    }
}

/// A time in the unit that suits it.
fn duration(milliseconds: f64) -> String {
    if milliseconds < 1.0 {
        format!("{} µs", short(1e3 * milliseconds))
    } else {
        format!("{} ms", short(milliseconds))
    }
}

/// Three digits or more.
pub(super) fn short(value: f64) -> String {
    let digits = [(100.0, 0), (10.0, 1), (1.0, 2)].into_iter().find(|(least, _)| value >= *least).map_or(3, |(_, d)| d);
    format!("{value:.digits$}")
}

/// A cell of a table has one line and no bars.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_cells_one_line() {
        assert_eq!([short(1234.5), short(12.345), short(1.2345), short(0.01234)], ["1234", "12.3", "1.23", "0.012"]);
        assert_eq!([duration(0.0123), duration(12.3)], ["12.3 µs", "12.3 ms"]);
        assert_eq!(one_line("a |\n b"), "a / b");
    }
}
