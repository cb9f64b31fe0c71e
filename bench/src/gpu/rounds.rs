//! Turns: ours, theirs, ours, theirs.

use super::card::State;
use super::case::{Case, Peer};
use super::outcome::Outcome;
use super::side::{Answer, Order, Side};
use super::sustained;

/// Repetitions of one turn at most.
const MOST: f64 = 20_000.0;
/// How much of a turn is spent on finding out how many repetitions fill one.
const TRIALS: [f64; 3] = [0.02, 0.2, 1.0];

/// How a case is measured.
pub(super) struct Rounds {
    pub(super) rounds: usize,
    pub(super) turn_ms: f64,
    /// Whether times mean anything.
    pub(super) timed: bool,
}

/// How a contestant did.
pub(super) struct Measured {
    /// None for ours.
    pub(super) peer: Option<Peer>,
    /// Milliseconds of one repetition, by round.
    pub(super) times: Vec<f64>,
    /// How far the result is from the reference.
    pub(super) error: Option<f64>,
    /// What came out, where that can be compared among contestants.
    pub(super) outcome: Option<Outcome>,
    /// Why there are no times, if nothing went wrong.
    pub(super) absent: Option<String>,
    /// What went wrong.
    pub(super) failed: Option<String>,
}

/// A contestant of one case.
struct Entry {
    measured: Measured,
    repeats: usize,
}

impl Entry {
    /// Takes note of an answer; whether it is one with figures.
    fn accept(&mut self, answer: &Answer) -> bool {
        let measured = &mut self.measured;
        measured.absent = measured.absent.take().or_else(|| answer.absent.clone());
        measured.failed = measured.failed.take().or_else(|| answer.failed.clone());
        self.runs()
    }

    fn runs(&self) -> bool {
        self.measured.absent.is_none() && self.measured.failed.is_none()
    }
}

impl Rounds {
    /// All contestants of a case, ours first, and the card: while it worked without a pause, and right behind the last turn.
    pub(super) fn measure(
        &self,
        case: &Case,
        ours: &mut Side,
        mut theirs: Option<&mut Side>,
    ) -> (Vec<Measured>, Vec<State>) {
        let peers = std::iter::once(None).chain(case.peers().iter().copied().map(Some));
        let mut entries: Vec<Entry> = peers.map(|peer| prepare(case, peer, ours, theirs.as_deref_mut())).collect();
        let mut states = Vec::new();
        if self.timed {
            for entry in entries.iter_mut().filter(|entry| entry.runs()) {
                self.fill_a_turn(entry, ours, theirs.as_deref_mut());
            }
            match case {
                Case::Sustained { seconds, .. } => states = sustain(*seconds, &mut entries, ours),
                _ => self.take_turns(&mut entries, ours, theirs.as_deref_mut()),
            }
            states.push(State::now());
        }
        ours.ask(&Order::Release);
        if let Some(theirs) = theirs {
            theirs.ask(&Order::Release);
        }
        (entries.into_iter().map(|entry| entry.measured).collect(), states)
    }

    /// One after the other, round by round.
    fn take_turns(&self, entries: &mut [Entry], ours: &mut Side, mut theirs: Option<&mut Side>) {
        for _ in 0..self.rounds {
            for entry in entries.iter_mut().filter(|entry| entry.runs()) {
                if let Some(milliseconds) = time(entry, ours, theirs.as_deref_mut()) {
                    entry.measured.times.push(milliseconds);
                }
            }
        }
    }

    /// Finds out how many repetitions make a turn; these are not counted.
    fn fill_a_turn(&self, entry: &mut Entry, ours: &mut Side, mut theirs: Option<&mut Side>) {
        for share in TRIALS {
            let Some(milliseconds) = time(entry, ours, theirs.as_deref_mut()) else { return };
            entry.repeats = (self.turn_ms * share / milliseconds).clamp(1.0, MOST) as usize;
            if milliseconds >= self.turn_ms {
                return;
            }
        }
    }
}

/// The turns of ours without a pause; the card meanwhile.
fn sustain(seconds: f64, entries: &mut [Entry], ours: &mut Side) -> Vec<State> {
    let Some(entry) = entries.first_mut().filter(|entry| entry.runs()) else { return Vec::new() };
    let load = sustained::load(seconds, entry.repeats, || time(entry, ours, None));
    entry.measured.times = load.times;
    load.states
}

/// The side of a contestant.
fn side<'a>(peer: Option<Peer>, ours: &'a mut Side, theirs: Option<&'a mut Side>) -> Option<&'a mut Side> {
    if peer.is_some() { theirs } else { Some(ours) }
}

fn prepare(case: &Case, peer: Option<Peer>, ours: &mut Side, theirs: Option<&mut Side>) -> Entry {
    let measured = Measured { peer, times: Vec::new(), error: None, outcome: None, absent: None, failed: None };
    let mut entry = Entry { measured, repeats: 1 };
    let Some(side) = side(peer, ours, theirs) else {
        entry.measured.absent = Some("no Python was given".to_owned());
        return entry;
    };
    let answer = side.ask(&Order::Prepare { case: case.clone(), peer });
    if entry.accept(&answer) {
        entry.measured.error = answer.error;
        entry.measured.outcome = answer.outcome;
    }
    entry
}

/// The milliseconds of one repetition in a turn.
fn time(entry: &mut Entry, ours: &mut Side, theirs: Option<&mut Side>) -> Option<f64> {
    let side = side(entry.measured.peer, ours, theirs)?;
    let answer = side.ask(&Order::Time { peer: entry.measured.peer, repeats: entry.repeats });
    entry.accept(&answer).then_some(answer.milliseconds)
}
