//! The figures, as tables for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::card::State;
use super::case::Case;
use super::row::{Figures, Row, one_line, short};
use super::side::Answer;
use super::work::{Bound, Ceilings};
use super::{Options, Place};

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    emulated: bool,
    tiny: bool,
    rounds: usize,
    turn_ms: f64,
    /// What ours is made of, and the card.
    ours: BTreeMap<String, String>,
    /// What the peers are made of.
    peers: BTreeMap<String, String>,
    card_before: State,
    card_after: Option<State>,
    ceilings: Ceilings,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(options: &Options, ours: Answer, theirs: Option<Answer>) -> Self {
        let facts = |answer: Answer| {
            let failed = answer.failed.map(|why| ("not started".to_owned(), why));
            answer.about.into_iter().chain(failed).collect()
        };
        let nobody = || BTreeMap::from([("none".to_owned(), "no Python was given".to_owned())]);
        Self {
            emulated: options.device == Place::Emulated,
            tiny: options.tiny,
            rounds: options.rounds,
            turn_ms: options.turn_ms,
            ours: facts(ours),
            peers: theirs.map_or_else(nobody, facts),
            card_before: State::now(),
            card_after: None,
            ceilings: Ceilings::default(),
            rows: Vec::new(),
        }
    }

    /// Adds a case; the first ones are the ceilings for all that follow.
    pub(super) fn add(&mut self, mut row: Row) {
        let fastest = row.contestants.iter().filter_map(Figures::median).reduce(f64::min);
        let rate = |work: f64| fastest.map_or(0.0, |milliseconds| work / milliseconds * 1e3);
        match row.case {
            Case::Copy { .. } => self.ceilings.bytes_per_s = rate(row.work.bytes),
            Case::Product { .. } => self.ceilings.flops_per_s = rate(row.work.flops),
            Case::Sustained { .. } => self.ceilings.sustained_flops_per_s = rate(row.work.flops),
            _ => {}
        }
        row.weigh(&self.ceilings);
        self.rows.push(row);
        if matches!(self.rows.last().map(|row| &row.case), Some(Case::Product { .. })) {
            self.rows.iter_mut().for_each(|row| row.weigh(&self.ceilings));
        }
    }

    /// Looks at the card once more.
    pub(super) fn finish(&mut self) {
        self.card_after = Some(State::now());
    }

    /// Cases in which something went wrong on our side.
    pub(super) fn failures(&self) -> usize {
        self.rows.iter().filter(|row| row.ours().failed.is_some()).count()
    }

    /// How many cases did what.
    pub(super) fn outcome(&self) -> String {
        let not_there = self.rows.iter().filter(|row| row.ours().absent.is_some()).count();
        let ran = self.rows.len() - self.failures() - not_there;
        let all = self.rows.iter().flat_map(|row| row.contestants.iter().skip(1));
        let [absent, lost] = [
            all.clone().filter(|peer| peer.absent.is_some()).count(),
            all.filter(|peer| peer.failed.is_some()).count(),
        ];
        let cases = self.rows.len();
        format!(
            "{ran} of {cases} cases ran, {not_there} are not on a device yet, {} failed; of the peers' {absent} were absent and \
             {lost} failed",
            self.failures()
        )
    }
}

const LEGEND: &str = "\
Times are medians with quartiles of the rounds, each a turn of many repetitions with one wait for the device at its end; the
contestants take turns. A ratio says how many times longer the peer takes than mllm4rec. A share is that of the lower of the two
ceilings, bytes or products of bfloat16, for the bytes and operations that nobody can do without; both sides' ceilings are
measured, and the higher counts. Errors are deviations from float64, relative (the norm of the difference by that of the
reference, on a sample); of decoded weights and of best items the share that differs; of the retriever's training step the
largest of the losses of four steps from those on the host. Peers compute with their own random inputs. The ranker's have the
same weights and prompts as ours, and no dropout; their deviations are from ours: the losses before and behind one update,
the gradient of the low-rank updates, the logits of the labels. Tokens are real ones on all sides, padding is none. Four-bit
peers decode in every product, ours where the decoded weights take more than half of the memory.
";

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Kernels beside their peers\n")?;
        if self.emulated {
            writeln!(f, "**Emulated, no times**: the device code ran on the CPU; peers, if any, ran there too.\n")?;
        }
        if self.tiny {
            writeln!(f, "Shapes are small ones, for a try.\n")?;
        }
        for (who, facts) in [("mllm4rec", &self.ours), ("peers", &self.peers)] {
            let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {}", one_line(value))).collect();
            writeln!(f, "- {who}: {}", facts.join(", "))?;
        }
        writeln!(f, "- nvidia-smi ({}):", State::fields())?;
        writeln!(f, "  - before: {}", self.card_before)?;
        if let Some(after) = &self.card_after {
            writeln!(f, "  - after: {after}")?;
        }
        writeln!(f, "- {} rounds of about {} ms", self.rounds, self.turn_ms)?;
        if let Some(ceilings) = self.ceilings() {
            writeln!(f, "- ceilings: {ceilings}")?;
        }
        writeln!(f, "- {}\n\n{LEGEND}", self.outcome())?;
        writeln!(f, "| bench | shape | who | time | rate | × ours | share of the ceiling | error |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| self.lines(row, f))?;
        self.worst(f)
    }
}

impl Report {
    /// What the card does at most, once that is known, and how it was doing under load.
    fn ceilings(&self) -> Option<String> {
        let Ceilings { bytes_per_s, flops_per_s, sustained_flops_per_s } = self.ceilings;
        if flops_per_s <= 0.0 {
            return None;
        }
        let mut told = format!("{} TB/s, {} TFLOP/s", short(bytes_per_s / 1e12), short(flops_per_s / 1e12));
        for row in &self.rows {
            if let Case::Sustained { seconds, .. } = row.case {
                let states: Vec<String> = row.card.iter().map(State::to_string).collect();
                told += &format!(", {} TFLOP/s without a pause for {seconds} s, ", short(sustained_flops_per_s / 1e12));
                told += &format!("when nvidia-smi said: {}", states.join(" / "));
            }
        }
        Some(told)
    }

    /// A line for every contestant of a case.
    fn lines(&self, row: &Row, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, (figures, share)) in row.contestants.iter().zip(&row.shares).enumerate() {
            let [what, shape] = if i == 0 { row.case.label() } else { [String::new(), String::new()] };
            let rate = figures.median().map(|ms| format!("{} {}/s", short(row.rate(ms)), row.work.unit));
            let ratio = figures.ratio.map(|ratio| format!("{ratio:.2}"));
            let bound = row.bound.map_or("", |bound| if bound == Bound::Bytes { "bytes" } else { "products" });
            let share = share.map(|share| format!("{:.0} % of {bound}", 100.0 * share));
            let error = figures.deviation();
            let [rate, ratio, share, error] = [rate, ratio, share, error].map(Option::unwrap_or_default);
            let (who, time) = (figures.name, figures.time(self.emulated));
            writeln!(f, "| {what} | {shape} | {who} | {time} | {rate} | {ratio} | {share} | {error} |")?;
        }
        Ok(())
    }

    /// The least of every bench's ratios: no other may be quoted without it.
    fn worst(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut worst: Vec<(String, &str, f64)> = Vec::new();
        for row in &self.rows {
            let [what, _] = row.case.label();
            for (name, ratio) in row.contestants.iter().filter_map(|peer| Some((peer.name, peer.ratio?))) {
                match worst.iter_mut().find(|(bench, peer, _)| *bench == what && *peer == name) {
                    Some((.., least)) => *least = least.min(ratio),
                    None => worst.push((what.clone(), name, ratio)),
                }
            }
        }
        if worst.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n| bench | peer | least ratio of its shapes |\n|---|---|---|")?;
        worst.iter().try_for_each(|(bench, peer, ratio)| writeln!(f, "| {bench} | {peer} | {ratio:.2} |"))
    }
}
