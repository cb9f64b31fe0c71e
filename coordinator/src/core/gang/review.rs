//! What a gang decides: who begins, who regroups, who is freed, and who has to go.

use std::cmp::Reverse;
use std::time::Duration;

use proto::{Generation, LeaseId};

use super::member::{Member, Stand, Told};
use super::{End, Gang, Numbers, Opened};
use crate::core::{Action, Policy};

impl Gang {
    /// Decides what follows from all that has happened.
    pub(in crate::core) fn review(&mut self, now: Duration, policy: &Policy, numbers: &mut Numbers) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.over {
            return actions;
        }
        self.call_back_strays(numbers.term, &mut actions);
        let goes_on = |last: &Opened| matches!(last.end, End::None | End::Regrouping);
        if self.last.as_ref().is_some_and(goes_on) && self.inside().next().is_some() {
            self.waits = None;
            if let Some(last) = self.last.as_mut().filter(|_| self.members.values().any(Member::waits)) {
                last.end = End::Regrouping;
            }
            self.tell_end(&mut actions);
        } else {
            self.tell_end(&mut actions);
            self.gather(now, policy, numbers, &mut actions);
        }
        actions
    }

    /// Members may still train in generations that this coordinator has not opened, or that it has given up.
    fn call_back_strays(&mut self, term: u64, actions: &mut Vec<Action>) {
        let last = self.last.as_ref().map(|last| last.number);
        for (lease, member) in &mut self.members {
            match member.stand.generation() {
                Some(stray) if Some(stray) != last && stray.term() == term => {
                    member.abort(*lease, "the others have gone on without it", actions);
                }
                Some(stray) if Some(stray) != last => member.regroup(*lease, actions),
                _ => {}
            }
        }
    }

    /// Tells those in the last generation that it ends, if it does.
    fn tell_end(&mut self, actions: &mut Vec<Action>) {
        let Some(Opened { number, end }) = self.last.as_ref() else { return };
        let inside = self.members.iter_mut().filter(|(_, m)| m.stand.generation() == Some(*number));
        for (lease, member) in inside {
            match end {
                End::Regrouping => member.regroup(*lease, actions),
                End::Broken(reason) => member.abort(*lease, reason, actions),
                End::None | End::InOrder(_) => {}
            }
        }
    }

    /// No generation goes on: opens the next one if it is time, and hurries those who are not out of the last one.
    fn gather(&mut self, now: Duration, policy: &Policy, numbers: &mut Numbers, actions: &mut Vec<Action>) {
        let waiting = self.members.values().any(Member::waits);
        self.waits = if waiting { self.waits.or(Some(now)) } else { None };
        let since = match self.last.as_mut().map(|last| &mut last.end) {
            Some(End::InOrder(since)) => Some(*since.get_or_insert(now)),
            _ => None,
        };
        let due = self.waits.or(since).is_some_and(|since| now.saturating_sub(since) >= policy.last_call);
        let missing = self.members.values().any(|member| !member.out && !member.waits());
        if due {
            self.break_up("the others have left it".to_owned());
            self.tell_end(actions);
        }
        if waiting && self.has_state() && (due || !missing) {
            self.part_the_unreachable(now, policy, actions);
            self.open(numbers, actions);
        }
    }

    /// Whether those who wait know as much of the training as those who do not: one step less may be.
    fn has_state(&self) -> bool {
        let mut away =
            self.members.values().filter(|member| member.veteran && !member.waits()).map(|member| member.step);
        let Some(first) = away.next() else { return true };
        let furthest = away.fold(first, u64::max);
        self.members.values().any(|member| member.veteran && member.waits() && member.step + 1 >= furthest)
    }

    fn open(&mut self, numbers: &mut Numbers, actions: &mut Vec<Action>) {
        let ranks: Vec<LeaseId> = self.members.iter().filter(|(_, m)| m.waits()).map(|(lease, _)| *lease).collect();
        if ranks.is_empty() {
            return;
        }
        let number = numbers.next();
        let members: Vec<_> = ranks.iter().filter_map(|lease| self.members[lease].peer()).collect();
        for (rank, lease) in (0_u32..).zip(ranks) {
            let Some(member) = self.members.get_mut(&lease) else { continue };
            (member.stand, member.veteran) = (Stand::Training { generation: number, told: Told::Nothing }, true);
            member.last = Some(number);
            actions.push(Action::Begin(member.worker, Generation { lease, number, rank, members: members.clone() }));
        }
        self.opened += 1;
        self.last = Some(Opened { number, end: End::None });
        self.waits = None;
    }

    /// Of two that could not reach each other again and again, one has to go: that which most others miss too, or that knows
    /// less of the training, or else the one that came last.
    fn part_the_unreachable(&mut self, now: Duration, policy: &Policy, actions: &mut Vec<Action>) {
        loop {
            let waits = |lease: &LeaseId| self.members.get(lease).is_some_and(Member::waits);
            let apart: Vec<(LeaseId, LeaseId)> =
                self.troubles.apart().filter(|(one, other)| waits(one) && waits(other)).collect();
            let misses = |lease: LeaseId| apart.iter().filter(|(one, other)| [*one, *other].contains(&lease)).count();
            let leases = apart.iter().flat_map(|(one, other)| [*one, *other]);
            let step = |lease: &LeaseId| self.members.get(lease).map_or(0, |member| member.step);
            let Some(out) = leases.max_by_key(|lease| (misses(*lease), Reverse(step(lease)), *lease)) else { return };
            let pair = apart.iter().find(|(one, other)| [*one, *other].contains(&out));
            let with = pair.map(|(one, other)| if *one == out { *other } else { *one });
            let place = |lease: &LeaseId| self.members.get(lease).map_or_else(String::new, Member::place);
            let reason = format!(
                "{} and {} could not reach each other twice: the training goes on without the former for {} s; see \
                 that the address of every worker can be reached by all others",
                place(&out),
                with.as_ref().map_or_else(String::new, place),
                policy.bar_for.as_secs()
            );
            let Some(member) = self.members.get_mut(&out) else { return };
            member.out = true;
            let (worker, name) = (member.worker, member.name.clone());
            self.failures.keep_out(&name, now + policy.bar_for);
            actions.push(Action::Revoke(worker, out, reason));
        }
    }
}
