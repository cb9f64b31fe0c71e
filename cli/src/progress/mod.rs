//! Live progress: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::terminal::print_error;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use proto::{JobStatus, StageState, StageStatus};

/// Plain lines about a running stage come at most so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Writes to standard error without tearing the bars.
#[derive(Clone)]
pub(crate) struct Printer {
    bars: Option<MultiProgress>,
}

impl Printer {
    /// Bars if standard error is a terminal, lines if not.
    pub(crate) fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Prints a line above the bars.
    pub(crate) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| print_error(text)),
            None => print_error(text),
        }
    }
}

/// The progress of one job.
pub(crate) struct Progress {
    printer: Printer,
    stages: BTreeMap<(String, Option<String>), Shown>,
    told_reused: bool,
    started: Instant,
}

/// What was last shown of a stage.
struct Shown {
    state: StageState,
    bar: Option<ProgressBar>,
    began: Instant,
    /// The first report of progress: a resumed stage begins in the middle.
    first: Option<(u64, Instant)>,
    /// What is counted.
    unit: String,
    last_line: Instant,
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new(printer: Printer) -> Self {
        Self { printer, stages: BTreeMap::new(), told_reused: false, started: Instant::now() }
    }

    /// Shows a status.
    pub(crate) fn update(&mut self, status: &JobStatus) {
        if !std::mem::replace(&mut self.told_reused, true) {
            let reused: Vec<String> = status.stages.iter().filter(|s| s.reused).map(name).collect();
            if !reused.is_empty() {
                self.printer.line(&format!("done before: {}", reused.join(", ")));
            }
        }
        for stage in &status.stages {
            if stage.reused || stage.state == StageState::Waiting {
                continue;
            }
            let key = (stage.stage.clone(), stage.split.clone());
            if !self.stages.contains_key(&key) {
                let shown = self.begin(stage);
                self.stages.insert(key.clone(), shown);
            }
            if let Some(shown) = self.stages.get_mut(&key) {
                Self::show(&self.printer, self.started, shown, stage);
            }
        }
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        for bar in self.stages.values().filter_map(|s| s.bar.as_ref()) {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }

    fn begin(&self, stage: &StageStatus) -> Shown {
        let bar = self.printer.bars.as_ref().map(|bars| {
            let bar = bars.add(
                ProgressBar::new(0)
                    .with_style(style("{prefix:22} {bar:24.cyan/dim} {elapsed:>4}  {msg}"))
                    .with_prefix(name(stage)),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            self.printer.line(&format!("[{}] {} begins", clock(self.started.elapsed()), name(stage)));
        }
        let now = Instant::now();
        Shown { state: StageState::Running, bar, began: now, first: None, unit: String::new(), last_line: now }
    }

    fn show(printer: &Printer, started: Instant, shown: &mut Shown, stage: &StageStatus) {
        if shown.state != StageState::Running {
            return; // what has ended stays as it ended
        }
        let ended = stage.state != StageState::Running;
        if shown.unit != stage.progress.unit {
            // Another count begins: rows that are read, then users that are written.
            shown.unit.clone_from(&stage.progress.unit);
            shown.first = None;
        }
        if shown.first.is_none() && stage.progress.done > 0 {
            shown.first = Some((stage.progress.done, Instant::now()));
        }
        let text = describe(shown, stage);
        if let Some(bar) = &shown.bar {
            let (done, total) = (stage.progress.done, stage.progress.total);
            bar.set_length(total.max(1));
            // Without an end in sight the bar stays empty: only the number beside it grows.
            bar.set_position(match stage.state {
                StageState::Done => total.max(1),
                _ if total == 0 => 0,
                _ => done,
            });
            if ended {
                // Its own time, and not that of the bars that go on.
                bar.set_style(style("{prefix:22} {bar:24.cyan/dim} {msg}"));
                let took = format!("{:#}", HumanDuration(shown.began.elapsed()));
                bar.set_message(format!("{took:>4}  {text}"));
                bar.abandon();
            } else {
                bar.set_message(text);
            }
        } else if ended {
            let verb = if stage.state == StageState::Done { "done" } else { "failed" };
            let took = shown.began.elapsed().as_secs_f64();
            let text = if verb == "done" && !text.is_empty() { format!("  {text}") } else { String::new() };
            printer.line(&format!("[{}] {} {verb} in {took:.1} s{text}", clock(started.elapsed()), name(stage)));
        } else if shown.last_line.elapsed() >= LINE_EVERY && shown.state == StageState::Running {
            shown.last_line = Instant::now();
            printer.line(&format!("[{}] {} {text}", clock(started.elapsed()), name(stage)));
        }
        shown.state = stage.state;
    }
}

/// `512/610 users  1,203/s  ETA 0:01  loss 4.2`
fn describe(shown: &Shown, stage: &StageStatus) -> String {
    let p = &stage.progress;
    let mut parts = Vec::new();
    if p.total > 0 {
        parts.push(format!("{}/{} {}", grouped(p.done), grouped(p.total), p.unit));
    } else if p.done > 0 {
        parts.push(format!("{} {}", grouped(p.done), p.unit));
    }
    if let Some(rate) = rate(shown, p.done) {
        parts.push(if rate >= 10.0 { format!("{}/s", grouped(rate as u64)) } else { format!("{rate:.1}/s") });
        if stage.state == StageState::Running && p.total > p.done {
            parts.push(format!("ETA {}", clock(Duration::from_secs_f64((p.total - p.done) as f64 / rate))));
        }
    }
    if !p.note.is_empty() {
        parts.push(p.note.clone());
    }
    if stage.retries > 0 {
        parts.push(format!("{} lease(s) given out again", stage.retries));
    }
    parts.join("  ")
}

/// Units a second since the first report; nothing until that says something.
fn rate(shown: &Shown, done: u64) -> Option<f64> {
    let (first, since) = shown.first?;
    let seconds = since.elapsed().as_secs_f64();
    let new = done.saturating_sub(first);
    (new > 0 && seconds > 0.2).then(|| new as f64 / seconds)
}

fn name(stage: &StageStatus) -> String {
    stage.split.as_ref().map_or_else(|| stage.stage.clone(), |split| format!("{}:{split}", stage.stage))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─")
}

/// `1:05` or `1:02:03`.
pub(crate) fn clock(time: Duration) -> String {
    let s = time.as_secs();
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

/// `1,234,567`
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
