//! The shards of one open artifact: every one is pending, leased, condemned or done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data::artifact::QUARANTINED;
use proto::{Committed, LeaseId};

/// The weight of the newest shard in the estimate of how long a row takes.
const NEWEST: f64 = 0.3;
/// Seconds after which a rate is half forgotten, at least.
const HALF_LIFE: f64 = 10.0;
/// What a rate says that is not worth a word: less than a row in a day.
const NOTHING: f64 = 1e-5;

/// The shards of an open artifact.
#[derive(Debug, Default)]
pub(super) struct Shards {
    rows: Vec<u64>,
    pub(super) pending: BTreeSet<u32>,
    /// Who works on what; more than one at the tail, or when a lease outlived its coordinator.
    leased: BTreeMap<u32, BTreeSet<LeaseId>>,
    /// Put aside; the record of it is being written.
    condemned: BTreeSet<u32>,
    done: BTreeSet<u32>,
    /// Done before, and what their records say is not known yet.
    untold: BTreeSet<u32>,
    pub(super) quarantined: BTreeSet<u32>,
    /// The leases that failed with a shard at work.
    failures: BTreeMap<u32, BTreeSet<LeaseId>>,
    losses: BTreeMap<u32, Losses>,
    pub(super) rejected: BTreeMap<String, u64>,
    total_rows: u64,
    done_rows: u64,
    seconds_per_row: Option<f64>,
    /// Rows that were committed lately and the seconds in which they were, both forgotten at the same pace.
    lately: (f64, f64),
    /// Rows done at the time of the last look.
    looked: (u64, Duration),
}

/// The leases that were lost with a shard at work.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Their workers had taken them up.
    heard_of: BTreeSet<LeaseId>,
    /// No word about them was ever heard.
    unheard: BTreeSet<LeaseId>,
}

impl Losses {
    /// How many speak against the shard. The first `free` of which no word was heard may be the network's, but a shard
    /// that kills before anybody can speak must not go on for ever.
    pub(super) fn count(&self, free: u32) -> u32 {
        count(&self.heard_of) + count(&self.unheard).saturating_sub(free)
    }

    /// How many there are.
    pub(super) fn all(&self) -> u32 {
        count(&self.heard_of) + count(&self.unheard)
    }

    /// Takes one back. Says whether others are left.
    fn forgive(&mut self, lease: LeaseId) -> bool {
        self.heard_of.remove(&lease);
        self.unheard.remove(&lease);
        self.all() > 0
    }
}

fn count<T>(set: &BTreeSet<T>) -> u32 {
    u32::try_from(set.len()).unwrap_or(u32::MAX)
}

impl Shards {
    /// Shards of so many rows each, 0 where unknown, of which some are done.
    pub(super) fn new(rows: Vec<u64>, done: &[u32]) -> Self {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let total_rows = rows.iter().sum();
        let mut shards = Self { rows, pending: (0..count).collect(), total_rows, ..Self::default() };
        for shard in done.iter().filter(|s| **s < count) {
            shards.pending.remove(shard);
            shards.finish(*shard);
            shards.untold.insert(*shard);
        }
        shards.looked.0 = shards.done_rows;
        shards
    }

    pub(super) fn all(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn done(&self) -> u32 {
        count(&self.done)
    }

    pub(super) fn leased(&self) -> u32 {
        u32::try_from(self.leased.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done.len() == self.rows.len()
    }

    pub(super) fn is_done(&self, shard: u32) -> bool {
        self.done.contains(&shard)
    }

    /// Rows in all; 0 where they are not known before.
    pub(super) fn total_rows(&self) -> u64 {
        self.total_rows
    }

    /// Rows of the shards that are done.
    pub(super) fn done_rows(&self) -> u64 {
        self.done_rows
    }

    /// Committed rows a second lately; 0 while that says nothing.
    pub(super) fn rate(&self) -> f64 {
        let (rows, seconds) = self.lately;
        let rate = if seconds > 0.0 { rows / seconds } else { 0.0 };
        if rate < NOTHING { 0.0 } else { rate }
    }

    /// Takes pending shards that together take about `target`, at most `most` of them. One that has cost a worker goes
    /// alone: it shall not take others with it.
    pub(super) fn take(&mut self, lease: LeaseId, target: Duration, most: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        let mut seconds = 0.0;
        for shard in &self.pending {
            let suspect = self.losses.contains_key(shard);
            let takes = self.estimate(*shard);
            let fits = takes.is_some_and(|s| seconds + s <= target.as_secs_f64());
            if !taken.is_empty() && (suspect || !fits || taken.len() >= most) {
                break;
            }
            taken.push(*shard);
            seconds += takes.unwrap_or_default();
            if suspect {
                break;
            }
        }
        for shard in &taken {
            self.pending.remove(shard);
            self.leased.entry(*shard).or_default().insert(lease);
        }
        taken
    }

    /// A lease works on a shard that is at work already, or that another coordinator gave it. Says whether that is of use.
    pub(super) fn join(&mut self, shard: u32, lease: LeaseId) -> bool {
        if shard >= self.all() || self.is_done(shard) || self.condemned.contains(&shard) {
            return false;
        }
        self.pending.remove(&shard);
        self.leased.entry(shard).or_default().insert(lease)
    }

    /// Whether a lease works on a shard.
    pub(super) fn holds(&self, shard: u32, lease: LeaseId) -> bool {
        self.leased.get(&shard).is_some_and(|leases| leases.contains(&lease))
    }

    /// How many leases work on a shard.
    pub(super) fn hands(&self, shard: u32) -> usize {
        self.leased.get(&shard).map_or(0, BTreeSet::len)
    }

    /// Seconds that a shard will take, once one has been seen.
    pub(super) fn estimate(&self, shard: u32) -> Option<f64> {
        Some(self.seconds_per_row? * self.weight(shard))
    }

    /// A shard is in the store, whoever wrote it. Returns the leases that work on it, or nothing if that was known.
    pub(super) fn committed(&mut self, committed: &Committed) -> Option<BTreeSet<LeaseId>> {
        let shard = committed.shard;
        if shard >= self.all() || self.is_done(shard) {
            return None;
        }
        if !committed.took.is_zero() {
            let seconds = committed.took.as_secs_f64() / self.weight(shard);
            self.seconds_per_row = Some(self.seconds_per_row.map_or(seconds, |s| s + NEWEST * (seconds - s)));
        }
        self.tally(committed);
        self.pending.remove(&shard);
        self.condemned.remove(&shard);
        self.finish(shard);
        Some(self.leased.remove(&shard).unwrap_or_default())
    }

    /// Takes in what the record of a shard says that was done before.
    pub(super) fn recall(&mut self, record: &Committed) {
        if self.untold.remove(&record.shard) {
            self.tally(record);
        }
    }

    fn tally(&mut self, record: &Committed) {
        for (reason, rows) in &record.rejected {
            *self.rejected.entry(reason.clone()).or_default() += rows;
        }
        if record.rejected.contains_key(QUARANTINED) {
            self.quarantined.insert(record.shard);
        }
    }

    /// A lease gives a shard back; it is pending again unless another lease works on it.
    pub(super) fn give_back(&mut self, shard: u32, lease: LeaseId) {
        let Some(leases) = self.leased.get_mut(&shard) else { return };
        leases.remove(&lease);
        if leases.is_empty() {
            self.leased.remove(&shard);
            self.pending.insert(shard);
        }
    }

    /// A lease failed at a shard. Returns how many have, or nothing if it was known that this one failed.
    pub(super) fn failed(&mut self, shard: u32, lease: LeaseId) -> Option<u32> {
        if self.failures.values().any(|leases| leases.contains(&lease)) {
            return None;
        }
        let leases = self.failures.entry(shard).or_default();
        leases.insert(lease);
        Some(count(leases))
    }

    /// A lease was lost with a shard at work, with or without a word about it.
    pub(super) fn lost(&mut self, shard: u32, lease: LeaseId, heard_of: bool) -> &Losses {
        let losses = self.losses.entry(shard).or_default();
        let leases = if heard_of { &mut losses.heard_of } else { &mut losses.unheard };
        leases.insert(lease);
        losses
    }

    /// A worker that counted as lost is back and works on, whatever shard it has come to meanwhile.
    pub(super) fn forgive(&mut self, lease: LeaseId) {
        self.losses.retain(|_, losses| losses.forgive(lease));
    }

    /// Puts a pending shard aside. Says whether it was one.
    pub(super) fn condemn(&mut self, shard: u32) -> bool {
        let pending = self.pending.remove(&shard);
        if pending {
            self.condemned.insert(shard);
        }
        pending
    }

    /// A shard that was to be put aside is not: whoever comes may try it again.
    pub(super) fn spare(&mut self, shard: u32) {
        if self.condemned.remove(&shard) {
            self.losses.remove(&shard);
            self.pending.insert(shard);
        }
    }

    /// Takes the measure of the time since the last look, unless nobody was at work. A shard comes all at once and has
    /// taken much longer than since the last look: what counts is the sum of rows over the sum of seconds.
    pub(super) fn look(&mut self, now: Duration) {
        let (rows, then) = std::mem::replace(&mut self.looked, (self.done_rows, now));
        let seconds = now.saturating_sub(then).as_secs_f64();
        let fresh = self.done_rows.saturating_sub(rows) as f64;
        if then.is_zero() || seconds <= 0.0 || (self.leased.is_empty() && fresh == 0.0) {
            return;
        }
        let kept = 0.5_f64.powf(seconds / self.half_life());
        self.lately = (kept * self.lately.0 + fresh, kept * self.lately.1 + seconds);
    }

    /// Long enough for a few shards, or the rate would fall while one is at work and jump when it is done. Before the
    /// first is done nothing is forgotten.
    fn half_life(&self) -> f64 {
        let shard = self.total_rows as f64 / self.rows.len().max(1) as f64;
        self.seconds_per_row.map_or(f64::INFINITY, |seconds| HALF_LIFE.max(2.0 * shard * seconds))
    }

    fn finish(&mut self, shard: u32) {
        self.done.insert(shard);
        self.done_rows += self.rows[shard as usize];
    }

    /// What a shard weighs against another: its rows, or one where they are not known.
    fn weight(&self, shard: u32) -> f64 {
        self.rows.get(shard as usize).map_or(1.0, |rows| (*rows).max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One worker that needs `takes` seconds for a shard of 1,000 rows, looked at four times a second.
    fn rates(takes: u64, shards: u32) -> Vec<f64> {
        let mut work = Shards::new(vec![1000; 100], &[]);
        let mut rates = Vec::new();
        work.take(LeaseId(1), Duration::ZERO, 1);
        for tick in 1..=u64::from(shards) * takes * 4 {
            let now = Duration::from_millis(250 * tick);
            if tick % (takes * 4) == 0 {
                let shard = u32::try_from(tick / (takes * 4)).expect("there are few") - 1;
                let committed =
                    Committed { shard, rows: 1000, took: Duration::from_secs(takes), ..Committed::default() };
                work.committed(&committed);
                work.take(LeaseId(1), Duration::ZERO, 1);
            }
            work.look(now);
            rates.push(work.rate());
        }
        rates
    }

    #[test]
    fn a_rate_is_right_from_the_first_shard_on() {
        for takes in [1, 5, 60] {
            let rates = rates(takes, 8);
            let (true_rate, first) =
                (1000.0 / takes as f64, rates.iter().position(|r| *r > 0.0).expect("rows were done"));
            for (tick, rate) in rates.iter().enumerate().skip(first) {
                // Just before a shard is done the last one is older, and just after it is newer, than on average.
                assert!((0.45..=1.6).contains(&(rate / true_rate)), "{takes} s a shard: {rate} rows/s at tick {tick}");
            }
        }
    }

    #[test]
    fn a_rate_does_not_fall_while_nobody_works() {
        let mut work = Shards::new(vec![10, 10], &[]);
        work.take(LeaseId(1), Duration::from_secs(60), 1);
        work.look(Duration::from_secs(1));
        work.committed(&Committed { shard: 0, rows: 10, took: Duration::from_secs(1), ..Committed::default() });
        work.look(Duration::from_secs(2));
        let rate = work.rate();
        assert!(rate > 0.0);
        work.look(Duration::from_secs(600));
        assert!((work.rate() - rate).abs() < 1e-9, "a stage that waits for a worker has not become slower");
    }
}
