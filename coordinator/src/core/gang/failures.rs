//! What workers may fail at in one training before they are left out, and the training before it ends. Workers that vanish or are
//! told to leave have not failed: of those there may be any number.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Policy;

/// The failures of a training, by worker. Names outlive sessions.
#[derive(Debug, Default)]
pub(super) struct Failures {
    of: BTreeMap<String, Account>,
}

#[derive(Debug, Default)]
struct Account {
    times: u32,
    /// It gets no lease before; none for ever.
    until: Option<Duration>,
    /// What it said last.
    words: String,
}

impl Failures {
    /// A worker has failed: it is kept out for twice as long as the time before, and at last for good.
    pub(super) fn note(&mut self, name: &str, words: &str, now: Duration, policy: &Policy) {
        let account = self.of.entry(name.to_owned()).or_default();
        account.times += 1;
        words.clone_into(&mut account.words);
        let bar = policy.bar_for * 2_u32.saturating_pow(account.times - 1).min(1024);
        account.until = (account.times < policy.max_worker_failures).then_some(now + bar);
    }

    /// A worker is kept out for a while, and has not failed.
    pub(super) fn keep_out(&mut self, name: &str, until: Duration) {
        let account = self.of.entry(name.to_owned()).or_default();
        account.until = account.until.map(|known| known.max(until)).or((account.times == 0).then_some(until));
    }

    pub(super) fn is_barred(&self, name: &str, now: Duration) -> bool {
        self.of.get(name).is_some_and(|account| account.until.is_none_or(|until| now < until))
    }

    /// Why the training ends, if workers have failed too often in it.
    pub(super) fn verdict(&self, policy: &Policy) -> Option<String> {
        let times: u32 = self.of.values().map(|account| account.times).sum();
        if times < policy.max_training_failures {
            return None;
        }
        let worst = self.of.iter().max_by_key(|(_, account)| account.times)?;
        let (name, Account { times: own, words, .. }) = worst;
        Some(format!("its workers have failed {times} times, {name} {own} times of these, at last: {words}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POLICY: Policy = Policy { max_worker_failures: 3, max_training_failures: 5, ..Policy::USUAL };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_worker_is_kept_out_for_longer_each_time_and_at_last_for_good() {
        let mut failures = Failures::default();
        assert!(!failures.is_barred("a", secs(0)));
        for (now, until) in [(0, 60), (100, 220)] {
            failures.note("a", "it broke", secs(now), &POLICY);
            assert!(failures.is_barred("a", secs(until - 1)) && !failures.is_barred("a", secs(until)));
        }
        failures.note("a", "it broke", secs(300), &POLICY);
        failures.keep_out("a", secs(310));
        assert!(failures.is_barred("a", secs(1_000_000)) && !failures.is_barred("b", secs(300)));
    }

    #[test]
    fn who_cannot_be_reached_has_not_failed() {
        let mut failures = Failures::default();
        (0..9).for_each(|n| failures.keep_out("a", secs(n)));
        assert!(failures.is_barred("a", secs(7)) && !failures.is_barred("a", secs(8)));
        assert_eq!(failures.verdict(&POLICY), None);
    }

    #[test]
    fn a_training_ends_whose_workers_fail_again_and_again() {
        let mut failures = Failures::default();
        for (n, name) in ["a", "b", "b", "c"].iter().enumerate() {
            failures.note(name, &format!("reason {n}"), secs(0), &POLICY);
        }
        assert_eq!(failures.verdict(&POLICY), None);
        failures.note("d", "reason 4", secs(0), &POLICY);
        let words = failures.verdict(&POLICY).unwrap();
        assert_eq!(words, "its workers have failed 5 times, b 2 times of these, at last: reason 2");
    }
}
