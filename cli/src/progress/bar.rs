//! One stage as a line: its bar, and what stands beside it.

use std::time::{Duration, Instant};

use proto::{StageState, StageStatus};

use super::{clock, grouped};
use crate::status::{eta, percent, speed};

/// The width of a bar in characters.
const WIDTH: usize = 24;

/// A rate that is measured here, for stages of which the coordinator knows no rows.
#[derive(Default)]
pub(super) struct Measured {
    /// The first report of progress: a resumed stage begins in the middle.
    first: Option<(u64, Instant)>,
    /// What is counted.
    unit: String,
}

impl Measured {
    /// Takes in a status.
    pub(super) fn look(&mut self, stage: &StageStatus) {
        if self.unit != stage.progress.unit {
            // Another count begins: rows that are read, then users that are written.
            self.unit.clone_from(&stage.progress.unit);
            self.first = None;
        }
        if self.first.is_none() && stage.progress.done > 0 {
            self.first = Some((stage.progress.done, Instant::now()));
        }
    }

    /// Units a second since the first report; nothing until that says something.
    fn rate(&self, done: u64) -> Option<f64> {
        let (first, since) = self.first?;
        let seconds = since.elapsed().as_secs_f64();
        let new = done.saturating_sub(first);
        (new > 0 && seconds > 0.2).then(|| new as f64 / seconds)
    }
}

/// What is safe, what is computed and not safe yet, and what is left: `━━━━╍╍╍───────`.
pub(super) fn draw(stage: &StageStatus, colours: bool) -> String {
    let (done, total) = (stage.progress.done, stage.progress.total);
    let cells = |n: u64| {
        let share = if total == 0 { 0.0 } else { n.min(total) as f64 / total as f64 };
        ((share * WIDTH as f64) as usize).min(WIDTH)
    };
    let (safe, computed) = match stage.state {
        StageState::Done => (WIDTH, WIDTH),
        // The last cell is filled by the end.
        _ => (cells(done).min(WIDTH - 1), cells(done + stage.working).min(WIDTH - 1)),
    };
    let colour = if stage.state == StageState::Failed { "31" } else { "36" };
    let part = |code: &str, sign: &str, n: usize| match (n, colours) {
        (0, _) => String::new(),
        (n, true) => format!("\x1b[{code}m{}\x1b[0m", sign.repeat(n)),
        (n, false) => sign.repeat(n),
    };
    let tip = computed.saturating_sub(safe);
    let left = WIDTH - safe - tip;
    format!("{}{}{}", part(colour, "━", safe), part(&format!("2;{colour}"), "╍", tip), part("2", "─", left))
}

/// `512/610 users  83 %  1,203/s  ETA 0:01  loss 4.2`
pub(super) fn describe(measured: &Measured, stage: &StageStatus) -> String {
    let p = &stage.progress;
    let mut parts = Vec::new();
    if p.total > 0 {
        parts.push(format!("{}/{} {}", grouped(p.done), grouped(p.total), p.unit));
    } else if p.done > 0 {
        parts.push(format!("{} {}", grouped(p.done), p.unit));
    }
    let running = stage.state == StageState::Running;
    if let Some(percent) = percent(stage).filter(|_| running && p.total > 0) {
        parts.push(format!("{:.0} %", percent.floor()));
    }
    let rate = if stage.rate > 0.0 { Some(stage.rate) } else { measured.rate(p.done) };
    if let Some(rate) = rate.filter(|_| running || stage.state == StageState::Done) {
        parts.push(speed(rate));
        parts.extend(eta(stage, rate).map(|eta| format!("ETA {}", clock(eta))));
    }
    if !p.note.is_empty() {
        parts.push(p.note.clone());
    }
    if stage.retries > 0 {
        parts.push(format!("{} lease(s) given out again", stage.retries));
    }
    let aside: u64 = stage.rejected.values().sum();
    if aside > 0 {
        parts.push(format!("{} put aside", grouped(aside)));
    }
    // A lease that has been silent for long is what one looks for when nothing moves.
    if running && stage.oldest_lease >= Duration::from_secs(60) && stage.shards.all > 1 {
        parts.push(format!("oldest lease {}", clock(stage.oldest_lease)));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use proto::{Progress, ShardCounts};

    use super::*;

    fn stage(state: StageState, done: u64, working: u64, total: u64) -> StageStatus {
        StageStatus {
            stage: "rank".to_owned(),
            split: None,
            trial: None,
            digest: String::new(),
            state,
            progress: Progress { done, total, unit: "users".to_owned(), note: String::new() },
            reused: false,
            retries: 0,
            shards: ShardCounts { all: 8, done: 0, leased: 0 },
            attempts: 0,
            oldest_lease: Duration::ZERO,
            rate: 0.0,
            rejected: [].into(),
            quarantined: vec![],
            working,
            members: 0,
            generations: 0,
        }
    }

    #[test]
    fn a_bar_tells_what_is_safe_from_what_is_only_computed() {
        assert_eq!(
            draw(&stage(StageState::Running, 12, 6, 24), false),
            format!("{}{}{}", "━".repeat(12), "╍".repeat(6), "─".repeat(6))
        );
        assert_eq!(draw(&stage(StageState::Running, 0, 0, 0), false), "─".repeat(24));
        assert_eq!(draw(&stage(StageState::Done, 0, 0, 0), false), "━".repeat(24));
        assert_eq!(
            draw(&stage(StageState::Running, 24, 0, 24), false),
            format!("{}─", "━".repeat(23)),
            "not before the end"
        );
        assert!(draw(&stage(StageState::Running, 12, 6, 24), true).contains("\x1b[2;36m╍"));
    }

    #[test]
    fn a_line_counts_and_foresees() {
        let running = StageStatus { rate: 12.0, ..stage(StageState::Running, 12, 6, 24) };
        assert_eq!(describe(&Measured::default(), &running), "12/24 users  50 %  12/s  ETA 0:01");
        let old = StageStatus { oldest_lease: Duration::from_secs(75), retries: 2, ..running };
        assert_eq!(
            describe(&Measured::default(), &old),
            "12/24 users  50 %  12/s  ETA 0:01  2 lease(s) given out again  oldest lease 1:15"
        );
    }
}
