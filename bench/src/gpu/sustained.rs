//! A product without a pause: what the card does once it is warm and its clocks have settled.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::card::State;

/// How many times the card is looked at meanwhile.
const LOOKS: u32 = 4;

/// Work without a pause.
pub(super) struct Load {
    /// Milliseconds of one repetition, by turn.
    pub(super) times: Vec<f64>,
    /// The card while it worked.
    pub(super) states: Vec<State>,
}

/// Takes one turn after the other, each of `repeats` repetitions, until they add up to so many seconds. A turn gives the
/// milliseconds of one repetition; one that gives none ends the load.
pub(super) fn load(seconds: f64, repeats: usize, mut turn: impl FnMut() -> Option<f64>) -> Load {
    let pause = Duration::from_secs_f64(seconds.max(0.0)) / (LOOKS + 1);
    let (running, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let looks = scope.spawn(move || {
            let due = || ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
            (0..LOOKS).map_while(|_| due().then(State::now)).collect()
        });
        let (mut times, mut milliseconds) = (Vec::new(), 0.0);
        while milliseconds < 1e3 * seconds
            && let Some(time) = turn()
        {
            milliseconds += time * repeats as f64;
            times.push(time);
        }
        drop(running);
        Load { times, states: looks.join().expect("looking at the card does not panic") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_lasts_as_long_as_it_should_and_ends_with_its_contestant() {
        let took = load(2.0, 5, || Some(100.0));
        assert_eq!(took.times, [100.0; 4]);
        let mut left = 2;
        let broken = load(60.0, 1, || {
            left -= 1;
            (left > 0).then_some(1.0)
        });
        assert_eq!(broken.times, [1.0]);
        assert_eq!(broken.states.len(), 0);
    }

    #[test]
    fn the_card_is_looked_at_under_load() {
        let took = load(0.1, 1, || {
            std::thread::sleep(Duration::from_millis(20));
            Some(20.0)
        });
        assert_eq!(took.times.len(), 5);
        assert!(!took.states.is_empty());
    }
}
