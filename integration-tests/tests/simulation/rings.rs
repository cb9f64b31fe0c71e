//! The streams between members of a gang: a round of words completes if all of them are there and say theirs. A word is
//! lost only where a member is, and the others may hear of that late, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{Generation, GenerationId, LeaseId, Peer};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::executor::Sim;

/// A member that hears nothing for so long gives its generation up.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(8);

/// All rings, and what members of trainings leave in the store; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Rings(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    rings: BTreeMap<GenerationId, Ring>,
    /// The last generation that a lease was in.
    last: BTreeMap<LeaseId, GenerationId>,
    checkpoints: BTreeMap<ArtifactId, u64>,
    /// Two places that do not reach each other.
    apart: Option<(u64, u64)>,
}

struct Ring {
    members: Vec<Peer>,
    seats: BTreeMap<LeaseId, (u64, UnboundedSender<Heard>)>,
    words: BTreeMap<u64, BTreeMap<LeaseId, Word>>,
    broken: bool,
}

/// What a member says in a round, and what comes of all words: the furthest step, and whether somebody regroups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    pub(crate) step: u64,
    pub(crate) regroup: bool,
}

/// What a member hears.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard {
    Round(Word),
    Unreachable(LeaseId),
    Broken,
}

/// A member's place in a ring, which breaks if it is given up before it is left in order.
pub(crate) struct Seat {
    rings: Rings,
    sim: Sim,
    number: GenerationId,
    lease: LeaseId,
    heard: UnboundedReceiver<Heard>,
    in_order: bool,
}

impl Rings {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    /// Steps that the store has of a training.
    pub(crate) fn checkpoint(&self, id: &ArtifactId) -> u64 {
        self.lock().checkpoints.get(id).copied().unwrap_or(0)
    }

    pub(crate) fn keep(&self, id: &ArtifactId, step: u64) {
        let mut inner = self.lock();
        let kept = inner.checkpoints.entry(id.clone()).or_default();
        *kept = step.max(*kept);
    }

    /// From now on two places do not reach each other, or all do.
    pub(crate) fn part(&self, apart: Option<(u64, u64)>) {
        self.lock().apart = apart;
    }

    /// A member takes its place in a generation.
    pub(crate) fn enter(&self, sim: &Sim, generation: &Generation, place: u64) -> Seat {
        let (to, heard) = unbounded_channel();
        let Generation { lease, number, ref members, .. } = *generation;
        let mut inner = self.lock();
        if inner.last.insert(lease, number).is_some_and(|last| last >= number) {
            sim.violated(format!("{lease} comes to {number} from a later one"));
        }
        let apart = inner.apart;
        let (words, seats) = (BTreeMap::new(), BTreeMap::new());
        let ring = Ring { members: members.clone(), seats, words, broken: false };
        let ring = inner.rings.entry(number).or_insert(ring);
        if ring.members != *members {
            sim.violated(format!("{number} has two lists of members"));
        }
        let is_apart = |other: u64| apart.is_some_and(|(a, b)| (a, b) == (place, other) || (b, a) == (place, other));
        for (other, (at, there)) in ring.seats.iter().filter(|(_, (at, _))| is_apart(*at)) {
            sim.log(|| format!("places {place} and {at} do not reach each other in {number}"));
            later(sim, 1000, to.clone(), Heard::Unreachable(*other));
            later(sim, 1000, there.clone(), Heard::Unreachable(lease));
            ring.broken = true;
        }
        if ring.broken {
            later(sim, 1500, to.clone(), Heard::Broken);
        }
        ring.seats.insert(lease, (place, to));
        Seat { rings: self.clone(), sim: sim.clone(), number, lease, heard, in_order: false }
    }
}

fn later(sim: &Sim, within: u64, to: UnboundedSender<Heard>, what: Heard) {
    sim.call(sim.between(1, within), move || {
        let _ = to.send(what);
    });
}

impl Seat {
    /// Says a word in a round.
    pub(crate) fn say(&self, round: u64, word: Word) {
        let mut inner = self.rings.lock();
        let Some(ring) = inner.rings.get_mut(&self.number) else { return };
        let words = ring.words.entry(round).or_default();
        words.insert(self.lease, word);
        if words.len() < ring.members.len() || ring.broken {
            return;
        }
        let step = words.values().map(|word| word.step).max().unwrap_or_default();
        let steps: BTreeSet<u64> = words.values().map(|word| word.step).collect();
        if round > 0 && steps.len() > 1 {
            self.sim.violated(format!("members of {} are at the steps {steps:?}", self.number));
        }
        let outcome = Word { step, regroup: words.values().any(|word| word.regroup) };
        ring.words.remove(&round);
        for (_, to) in ring.seats.values() {
            let (to, sim, rings, number) = (to.clone(), self.sim.clone(), self.rings.clone(), self.number);
            self.sim.call(self.sim.between(1, 40), move || {
                let broken = rings.lock().rings.get(&number).is_some_and(|ring| ring.broken);
                if !broken || sim.chance(500) {
                    let _ = to.send(Heard::Round(outcome));
                }
            });
        }
    }

    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// All have done the same and say no more.
    pub(crate) fn leave_in_order(&mut self) {
        self.in_order = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.in_order {
            return;
        }
        let mut inner = self.rings.lock();
        let Some(ring) = inner.rings.get_mut(&self.number) else { return };
        ring.broken = true;
        ring.seats.remove(&self.lease);
        if self.sim.chance(100) {
            return; // its machine went with it, and nobody says so
        }
        for (_, to) in ring.seats.values() {
            later(&self.sim, 1500, to.clone(), Heard::Broken);
        }
    }
}
