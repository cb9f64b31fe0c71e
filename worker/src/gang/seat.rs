//! A member's seat: where its session lays down what the coordinator says, and its training thread looks.
//!
//! The training thread may hang in a kernel or wait for a member that is gone. The session does not: through the seat it
//! closes the streams of a generation that is over, and finds out that a step has said nothing for too long.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::{Generation, GenerationId};
use tokio_util::sync::CancellationToken;

/// How long the training thread sleeps between two looks at whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// A step may take so many times as long as the longest so far, and the first one, which may compile kernels, so many times
/// as long as any may.
const TIMES: u32 = 10;

/// What the training thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Nothing that is watched: it loads, waits for others or for storage.
    Not,
    /// It computes, and was heard of last then.
    Computes(Instant),
}

/// Ends something that a member may wait for, from another thread and without waiting itself.
pub(crate) type Closer = Box<dyn Fn() + Send>;

/// A member's seat.
pub(crate) struct Seat {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What the coordinator has called last, until it is taken.
    called: Option<Generation>,
    /// The generation that this member is in, and what ends its waits.
    inside: Option<(GenerationId, Vec<Closer>)>,
    /// The highest generations that were told to end: in order, and at once.
    regroup: Option<GenerationId>,
    aborted: Option<(GenerationId, String)>,
    watched: Watched,
    /// Why this process has to end, if it has to.
    stuck: Option<String>,
    /// The longest silence of computing so far, once a step is done, and how long one may be at least.
    longest: Duration,
    warm: bool,
    patience: Duration,
}

impl Seat {
    /// A seat that nobody has called to. A step may say nothing for `patience` at least.
    pub(crate) fn new(patience: Duration) -> Self {
        let state = State {
            called: None,
            inside: None,
            regroup: None,
            aborted: None,
            watched: Watched::Not,
            stuck: None,
            longest: Duration::ZERO,
            warm: false,
            patience,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coordinator calls to a generation.
    pub(crate) fn call(&self, generation: Generation) {
        self.state().called = Some(generation);
        self.changed.notify_all();
    }

    /// A generation is to end in order.
    pub(crate) fn regroup(&self, number: GenerationId) {
        let mut state = self.state();
        state.regroup = state.regroup.max(Some(number));
    }

    /// A generation is over: whoever waits in it is woken.
    pub(crate) fn abort(&self, number: GenerationId, reason: String) {
        let mut state = self.state();
        if state.aborted.as_ref().is_none_or(|(aborted, _)| *aborted < number) {
            state.aborted = Some((number, reason));
        }
        state.close_aborted();
        state.called.take_if(|called| called.number <= number);
    }

    /// Why this member hangs, if it does.
    pub(crate) fn hangs(&self) -> Option<String> {
        let state = self.state();
        if state.stuck.is_some() {
            return state.stuck.clone();
        }
        let Watched::Computes(since) = state.watched else { return None };
        let usual = if state.warm { state.longest } else { state.longest.max(state.patience) };
        let limit = (TIMES * usual).max(state.patience);
        let silent = since.elapsed();
        (silent > limit).then(|| {
            let secs = |time: Duration| time.as_secs_f64();
            format!("a step has said nothing for {:.1} s, {:.1} s are allowed", secs(silent), secs(limit))
        })
    }

    /// Something holds this member's device, and ends with this process only.
    pub(crate) fn stick(&self, reason: String) {
        self.state().stuck = Some(reason);
    }

    /// Waits for a generation. Nothing comes where the worker is to stop.
    pub(crate) fn wait(&self, stop: &CancellationToken) -> Option<Generation> {
        let mut state = self.state();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(generation) = state.called.take() {
                return Some(generation);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// This member is in a generation from now on, and waits for others where these end it.
    pub(crate) fn enter(&self, number: GenerationId, closers: Vec<Closer>) {
        let mut state = self.state();
        state.inside = Some((number, closers));
        state.close_aborted();
    }

    /// It waits somewhere else, too.
    pub(crate) fn guard(&self, closer: Closer) {
        let mut state = self.state();
        if let Some((_, closers)) = &mut state.inside {
            closers.push(closer);
        }
        state.close_aborted();
    }

    /// This member is in no generation any more.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        (state.inside, state.watched) = (None, Watched::Not);
    }

    /// Whether the generation that this member is in is to end in order.
    pub(crate) fn regroups(&self) -> bool {
        let state = self.state();
        state.inside.as_ref().is_some_and(|(number, _)| state.regroup >= Some(*number))
    }

    /// Why a generation was aborted, if it was.
    pub(crate) fn aborted(&self, number: GenerationId) -> Option<String> {
        let state = self.state();
        state.aborted.as_ref().filter(|(aborted, _)| *aborted >= number).map(|(_, reason)| reason.clone())
    }

    /// The training thread says what it is at.
    pub(crate) fn watch(&self, watched: Watched) {
        let mut state = self.state();
        if let Watched::Computes(since) = state.watched {
            let silent = since.elapsed();
            state.longest = state.longest.max(silent);
        }
        state.watched = watched;
    }

    /// A step is done: what comes to pass at the first one has come to pass.
    pub(crate) fn warm_up(&self) {
        self.state().warm = true;
    }

    /// A sign of life of the training thread, if it is watched.
    pub(crate) fn beat(&self) {
        if self.state().watched != Watched::Not {
            self.watch(Watched::Computes(Instant::now()));
        }
    }
}

impl State {
    fn close_aborted(&self) {
        let aborted = self.aborted.as_ref().map(|(number, _)| *number);
        if let Some((_, closers)) = self.inside.as_ref().filter(|(number, _)| aborted >= Some(*number)) {
            closers.iter().for_each(|close| close());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpStream;
    use std::sync::Arc;

    use super::*;
    use crate::gang::links::closer;

    fn generation(number: u64) -> Generation {
        Generation { lease: proto::LeaseId(1), number: GenerationId(number), rank: 0, members: vec![] }
    }

    #[test]
    fn whoever_waits_hears_the_call_or_the_stop() {
        let (seat, stop) = (Arc::new(Seat::new(Duration::ZERO)), CancellationToken::new());
        let waiting = std::thread::spawn({
            let (seat, stop) = (seat.clone(), stop.clone());
            move || (seat.wait(&stop), seat.wait(&stop))
        });
        seat.call(generation(4));
        while seat.state().called.is_some() {
            std::thread::yield_now();
        }
        stop.cancel();
        assert_eq!(waiting.join().unwrap(), (Some(generation(4)), None));
    }

    #[test]
    fn an_abort_counts_for_its_generation_and_those_before() {
        let seat = Seat::new(Duration::ZERO);
        seat.call(generation(4));
        seat.abort(GenerationId(4), "a member is lost".to_owned());
        seat.call(generation(5));
        assert_eq!(seat.wait(&CancellationToken::new()), Some(generation(5)));
        assert!(seat.aborted(GenerationId(5)).is_none() && seat.aborted(GenerationId(3)).is_some());
    }

    #[test]
    fn an_abort_wakes_whoever_reads_even_if_it_comes_first() {
        for first in [true, false] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let _theirs = listener.accept().unwrap();
            let seat = Seat::new(Duration::ZERO);
            let abort = || seat.abort(GenerationId(7), "a member is lost".to_owned());
            if first {
                abort();
            }
            seat.enter(GenerationId(7), vec![closer(&ours).unwrap()]);
            std::thread::scope(|scope| {
                let reads = scope.spawn(|| std::io::Read::read(&mut &ours, &mut [0]));
                if !first {
                    abort();
                }
                assert_eq!(reads.join().unwrap().unwrap(), 0);
            });
        }
    }

    #[test]
    fn regrouping_is_of_a_generation() {
        let seat = Seat::new(Duration::ZERO);
        seat.regroup(GenerationId(3));
        seat.enter(GenerationId(4), Vec::new());
        assert!(!seat.regroups());
        seat.regroup(GenerationId(4));
        assert!(seat.regroups());
        seat.leave();
        assert!(!seat.regroups());
    }

    #[test]
    fn a_step_hangs_that_is_silent_for_longer_than_patience_and_steps_before() {
        let seat = Seat::new(Duration::from_secs(30));
        let ago = |time| Watched::Computes(Instant::now().checked_sub(Duration::from_secs(time)).unwrap());
        seat.watch(ago(0));
        seat.watch(ago(200));
        assert_eq!(seat.hangs(), None, "the first step may compile kernels");
        seat.state().watched = ago(301);
        assert!(seat.hangs().unwrap().contains("has said nothing for 301"));
        seat.state().watched = Watched::Not;
        seat.warm_up();
        seat.state().longest = Duration::from_secs(7);
        seat.watch(ago(60));
        assert_eq!(seat.hangs(), None);
        seat.state().watched = ago(71);
        assert!(seat.hangs().unwrap().contains("70.0 s are allowed"));
        seat.watch(Watched::Not);
        assert_eq!(seat.hangs(), None, "whoever waits does not hang");
        seat.state().patience = Duration::from_secs(90_000);
        seat.watch(ago(80_000));
        assert_eq!(seat.hangs(), None);
    }
}
