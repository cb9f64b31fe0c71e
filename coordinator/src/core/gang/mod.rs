//! One gang, without I/O and without a clock of its own: who is in it, and which of its members train together.
//!
//! ```text
//! member      Loading ──Ready──► Waiting ──Begin──► Training ──Ready──► Waiting …
//! generation  runs ──somebody new is Ready──► told to regroup ──┐
//!               │                                               ▼
//!               └── a member is Ready, lost or gone ───────► ended ──all Ready, or last_call after the first──► the next
//! ```
//!
//! What happens only changes what is known; [`Gang::review`] alone decides. Whoever has trained holds the state, so while
//! one of them is on its way out of a generation, the next one does not begin with new members only.

mod failures;
mod member;
mod review;
#[cfg(test)]
mod tests;
mod troubles;

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{GenerationId, LeaseId, Ready, WorkerId};

use super::Policy;
use failures::Failures;
use member::{Member, Stand, Told};
use troubles::{Loss, Troubles};

/// Gives out the numbers of generations.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    term: u64,
    given: u64,
}

impl Numbers {
    pub(super) fn new(term: u64) -> Self {
        Self { term, given: 0 }
    }

    fn next(&mut self) -> GenerationId {
        self.given += 1;
        GenerationId::of(self.term, self.given)
    }
}

/// Those who train one artifact.
#[derive(Debug)]
pub(super) struct Gang {
    most: usize,
    members: BTreeMap<LeaseId, Member>,
    /// The generation that was opened last.
    last: Option<Opened>,
    /// Generations opened so far.
    opened: u32,
    /// Since when somebody waits while no generation goes on.
    waits: Option<Duration>,
    troubles: Troubles,
    failures: Failures,
    /// The training is over: whoever is left ends by itself.
    over: bool,
}

/// A generation that was opened.
#[derive(Debug)]
struct Opened {
    number: GenerationId,
    end: End,
}

/// Whether a generation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// It does.
    None,
    /// It does to the end of the step at hand.
    Regrouping,
    /// A member has left it in order; since when the others are waited for, once that is looked at.
    InOrder(Option<Duration>),
    /// It has lost a member.
    Broken(String),
}

impl Gang {
    /// A gang of so many at most.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most: most.max(1) as usize,
            members: BTreeMap::new(),
            last: None,
            opened: 0,
            waits: None,
            troubles: Troubles::default(),
            failures: Failures::default(),
            over: false,
        }
    }

    /// A lease was granted, or its worker has another session.
    pub(super) fn hold(&mut self, lease: LeaseId, worker: WorkerId, name: &str) {
        let member = self.members.entry(lease).or_insert_with(|| Member::new(worker, name));
        (member.worker, member.out) = (worker, false);
    }

    /// A worker that was cut off says where it stands: in a generation, or about to say that it is ready.
    pub(super) fn claim(&mut self, lease: LeaseId, generation: Option<GenerationId>) {
        self.troubles.forgive(lease);
        let inside = self.is_inside(lease);
        let Some(member) = self.members.get_mut(&lease) else { return };
        let was = std::mem::replace(
            &mut member.stand,
            match generation {
                Some(generation) => Stand::Training { generation, told: Told::Nothing },
                None => Stand::Loading,
            },
        );
        member.veteran |= generation.is_some();
        let name = member.name.clone();
        if inside && was.generation() != generation {
            self.break_up(format!("{name} has left it"));
        }
    }

    /// A member waits for a generation.
    pub(super) fn ready(&mut self, ready: Ready) {
        let inside = self.is_inside(ready.lease);
        let Some(member) = self.members.get_mut(&ready.lease) else { return };
        let broken = ready.broken.as_ref();
        if let (Some(trains), Some(broken)) = (member.stand.generation(), broken)
            && trains != broken.generation
        {
            return; // it was said before it heard of the generation that it is in
        }
        let name = member.name.clone();
        self.troubles.reach(ready.step, member.stand.generation());
        self.troubles.learns(ready.step, &ready.about);
        if let Some((generation, other)) = broken.and_then(|b| Some((b.generation, b.unreachable?))) {
            self.troubles.cannot_reach(ready.lease, other, generation);
        }
        let reason = broken.map(|broken| format!("{name}: {}", broken.reason));
        (member.step, member.stand) = (ready.step, Stand::Waiting(ready));
        match reason {
            Some(reason) if inside => self.break_up(reason),
            None if inside => self.end_in_order(),
            _ => {}
        }
    }

    /// A member has done so many steps.
    pub(super) fn reached(&mut self, lease: LeaseId, step: u64) {
        if let Some(member) = self.members.get_mut(&lease)
            && let Some(generation) = member.stand.generation()
        {
            member.step = step;
            self.troubles.reach(step, Some(generation));
        }
    }

    /// A member has handed its lease back.
    pub(super) fn leave(&mut self, lease: LeaseId) {
        let inside = self.is_inside(lease);
        self.members.remove(&lease);
        if inside {
            self.end_in_order();
        }
    }

    /// A member vanished or failed. Says whether that counts against the step: a member that has not trained yet may say
    /// little about a step at which others train.
    pub(super) fn lose(&mut self, lease: LeaseId, heard_of: bool, reason: &str) -> bool {
        let inside = self.is_inside(lease);
        let Some(member) = self.members.remove(&lease) else { return false };
        if inside && self.inside().next().is_some() {
            self.break_up(format!("{} is lost: {reason}", member.name));
        }
        // Whoever waits behind a generation may be lost with those who were in it.
        let generation = member.stand.generation().or(member.last);
        let counts =
            member.stand.generation().is_some() || !self.members.values().any(|m| m.stand.generation().is_some());
        if counts {
            let words = format!("{}: {reason}", member.name);
            let newest = self.members.keys().last().copied().unwrap_or(lease).max(lease);
            self.troubles.losses.push(Loss { lease, generation, newest, heard_of, words });
        }
        counts
    }

    /// A member is to leave, or has said that it will: it is in no generation after this one.
    pub(super) fn put_out(&mut self, lease: LeaseId) {
        if let Some(member) = self.members.get_mut(&lease) {
            member.out = true;
        }
    }

    /// The training is over.
    pub(super) fn finish(&mut self) {
        self.over = true;
    }

    /// A member says that it has failed: its worker gets no lease of it for a while.
    pub(super) fn fail(&mut self, lease: LeaseId, words: &str, now: Duration, policy: &Policy) {
        if let Some(member) = self.members.get(&lease) {
            self.failures.note(&member.name, words, now, policy);
        }
    }

    /// Whether a worker of that name gets no lease of it.
    pub(super) fn is_barred(&self, worker: &str, now: Duration) -> bool {
        self.failures.is_barred(worker, now)
    }

    /// Why the training fails, if it has lost members too often where it is, or had too many that failed.
    pub(super) fn verdict(&self, policy: &Policy) -> Option<String> {
        self.troubles.verdict(policy).or_else(|| self.failures.verdict(policy))
    }

    /// The members that stay.
    pub(super) fn size(&self) -> usize {
        self.members.values().filter(|member| !member.out).count()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.over && self.size() < self.most
    }

    /// The member that is missed least, of those that are of use elsewhere: one that does not train yet, or else the last that came.
    pub(super) fn spare(&self, useful: impl Fn(LeaseId) -> bool) -> Option<LeaseId> {
        let staying = self.members.iter().filter(|(lease, member)| !member.out && useful(**lease));
        staying.max_by_key(|(lease, member)| (!member.veteran, **lease)).map(|(lease, _)| *lease)
    }

    /// Whether others train, whatever becomes of one.
    pub(super) fn trains_without(&self, lease: LeaseId) -> bool {
        self.inside().any(|(other, _)| *other != lease)
    }

    /// The members that train now.
    pub(super) fn training(&self) -> u32 {
        u32::try_from(self.inside().count()).unwrap_or(u32::MAX)
    }

    /// Generations opened so far.
    pub(super) fn opened(&self) -> u32 {
        self.opened
    }

    /// The members of the last generation that have not left it.
    fn inside(&self) -> impl Iterator<Item = (&LeaseId, &Member)> {
        let number = self.last.as_ref().map(|last| last.number);
        self.members.iter().filter(move |(_, m)| number.is_some() && m.stand.generation() == number)
    }

    fn is_inside(&self, lease: LeaseId) -> bool {
        self.inside().any(|(member, _)| *member == lease)
    }

    fn break_up(&mut self, reason: String) {
        if let Some(last) = self.last.as_mut().filter(|last| !matches!(last.end, End::Broken(_))) {
            last.end = End::Broken(reason);
        }
    }

    fn end_in_order(&mut self) {
        if let Some(last) = self.last.as_mut().filter(|last| matches!(last.end, End::None | End::Regrouping)) {
            last.end = End::InOrder(None);
        }
    }
}
