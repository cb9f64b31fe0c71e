//! Live progress: bars on a terminal, plain lines elsewhere.

mod bar;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use proto::{JobStatus, StageState, StageStatus};

use crate::status::{stage_name, stages_done};
use crate::terminal::print_error;
use bar::{Measured, describe, draw};

/// Plain lines about a running stage come at most so often.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Bars are drawn again so often.
const TICK: Duration = Duration::from_millis(120);
/// What a job waits for is told once it has waited for so long.
const LASTING: Duration = Duration::from_secs(3);

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
    stages: BTreeMap<String, Shown>,
    told_reused: bool,
    started: Instant,
    /// A line above the stages about the job as a whole.
    title: Option<ProgressBar>,
    waiting: Waiting,
}

/// What a job has been waiting for, and since when.
struct Waiting {
    words: String,
    since: Instant,
    told: bool,
}

/// What was last shown of a stage.
struct Shown {
    state: StageState,
    bar: Option<ProgressBar>,
    began: Instant,
    measured: Measured,
    last_line: Instant,
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new(printer: Printer) -> Self {
        let now = Instant::now();
        let waiting = Waiting { words: String::new(), since: now, told: false };
        Self { printer, stages: BTreeMap::new(), told_reused: false, started: now, title: None, waiting }
    }

    /// The same with a line about the job above its stages.
    pub(crate) fn titled(printer: Printer) -> Self {
        let bar = |bars: &MultiProgress| bars.add(ProgressBar::new(0).with_style(style("{spinner:.cyan} {msg}")));
        let title = printer.bars.as_ref().map(bar);
        if let Some(title) = &title {
            title.enable_steady_tick(TICK);
        }
        Self { title, ..Self::new(printer) }
    }

    /// Shows a status.
    pub(crate) fn update(&mut self, status: &JobStatus) {
        if !std::mem::replace(&mut self.told_reused, true) {
            let reused: Vec<String> = status.stages.iter().filter(|s| s.reused).map(stage_name).collect();
            if !reused.is_empty() {
                self.printer.line(&format!("done before: {}", reused.join(", ")));
            }
        }
        if let Some(title) = &self.title {
            title.set_message(heading(status));
        }
        self.tell_waiting(&status.waiting);
        for stage in &status.stages {
            let uncounted = stage.state == StageState::Done && stage.shards.all == 0;
            if stage.reused || uncounted || stage.state == StageState::Waiting {
                continue;
            }
            let key = stage_name(stage);
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
        if let Some(title) = &self.title {
            title.finish_and_clear();
        }
    }

    /// What lasts is told once, unless the title tells it; a worker that comes after a moment is nothing to speak of.
    fn tell_waiting(&mut self, words: &str) {
        if self.title.is_some() {
            return;
        }
        let waiting = &mut self.waiting;
        if waiting.words != words {
            let told = waiting.told && words.is_empty();
            *waiting = Waiting { words: words.to_owned(), since: Instant::now(), told: false };
            if told {
                self.printer.line(&format!("[{}] the job goes on", clock(self.started.elapsed())));
            }
        }
        if !words.is_empty() && !waiting.told && waiting.since.elapsed() >= LASTING {
            waiting.told = true;
            self.printer.line(&format!("[{}] waiting: {words}", clock(self.started.elapsed())));
        }
    }

    fn begin(&self, stage: &StageStatus) -> Shown {
        let bar = self.printer.bars.as_ref().map(|bars| {
            let bar = bars.add(
                ProgressBar::new(0)
                    .with_style(style("{prefix:22} {elapsed:>6}  {wide_msg}"))
                    .with_prefix(stage_name(stage)),
            );
            bar.enable_steady_tick(TICK);
            bar
        });
        if bar.is_none() {
            self.printer.line(&format!("[{}] {} begins", clock(self.started.elapsed()), stage_name(stage)));
        }
        let now = Instant::now();
        Shown { state: StageState::Running, bar, began: now, measured: Measured::default(), last_line: now }
    }

    fn show(printer: &Printer, started: Instant, shown: &mut Shown, stage: &StageStatus) {
        if shown.state != StageState::Running {
            return; // what has ended stays as it ended
        }
        let ended = stage.state != StageState::Running;
        shown.measured.look(stage);
        let text = describe(&shown.measured, stage);
        // Of trials there may be more than a screen has lines: those that have ended move up out of the way.
        if let Some(bar) = shown.bar.take_if(|_| ended && stage.trial.is_some()) {
            bar.finish_and_clear();
        }
        if let Some(bar) = &shown.bar {
            let text = format!("{}  {text}", draw(stage, colours()));
            if ended {
                // Its own time, and not that of the bars that go on.
                bar.set_style(style("{prefix:22} {wide_msg}"));
                let took = format!("{:#}", HumanDuration(shown.began.elapsed()));
                bar.set_message(format!("{took:>6}  {text}"));
                bar.abandon();
            } else {
                bar.set_message(text);
            }
        } else if ended {
            let verb = if stage.state == StageState::Done { "done" } else { "failed" };
            let took = shown.began.elapsed().as_secs_f64();
            let text = if verb == "done" && !text.is_empty() { format!("  {text}") } else { String::new() };
            let name = stage_name(stage);
            printer.line(&format!("[{}] {name} {verb} in {took:.1} s{text}", clock(started.elapsed())));
        } else if shown.last_line.elapsed() >= LINE_EVERY {
            shown.last_line = Instant::now();
            printer.line(&format!("[{}] {} {text}", clock(started.elapsed()), stage_name(stage)));
        }
        shown.state = stage.state;
    }
}

/// `shop-0123456789ab  3 of 9 stages  2 workers`
fn heading(status: &JobStatus) -> String {
    let workers = if status.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", status.workers) };
    let stages = format!("{} of {} stages", stages_done(status), status.stages.len());
    let (bold, dim, warn, plain) =
        if colours() { ("\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[0m") } else { ("", "", "", "") };
    let waiting = match status.waiting.as_str() {
        "" => String::new(),
        words => format!("  {warn}waiting: {words}{plain}"),
    };
    format!("{bold}{}{plain}  {dim}{stages}, {workers}{plain}{waiting}", status.job)
}

/// Whether whoever reads wants colours (<https://no-color.org>).
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
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
