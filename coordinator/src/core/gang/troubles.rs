//! What has gone wrong at the step at which a gang is, and is forgotten once it gets further.

use std::collections::{BTreeMap, BTreeSet};

use proto::{GenerationId, LeaseId};

use crate::core::Policy;

/// Generations without a step after which two that cannot reach each other are parted.
const PATIENCE: usize = 2;

/// Losses and bad connections.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Steps that some member has done.
    step: u64,
    /// What the step behind so many learns from.
    about: Option<(u64, String)>,
    /// Members that vanished or failed.
    pub(super) losses: Vec<Loss>,
    /// Pairs that could not reach each other, and in which generations.
    unreached: BTreeMap<(LeaseId, LeaseId), BTreeSet<GenerationId>>,
}

/// A member that was lost.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) lease: LeaseId,
    /// Where it trained, if it did.
    pub(super) generation: Option<GenerationId>,
    /// The newest member at that time.
    pub(super) newest: LeaseId,
    /// Whether its worker ever said a word about the lease.
    pub(super) heard_of: bool,
    /// Who, and why.
    pub(super) words: String,
}

impl Troubles {
    /// A member has done so many steps, in a generation if it was in one. What that lost, it lost at this step: it does
    /// not go on without the lost one.
    pub(super) fn reach(&mut self, step: u64, generation: Option<GenerationId>) {
        if step > self.step {
            self.step = step;
            self.losses.retain(|loss| loss.generation.is_some() && loss.generation == generation);
            self.unreached.clear();
        }
    }

    /// What the step behind so many learns from.
    pub(super) fn learns(&mut self, step: u64, about: &str) {
        if !about.is_empty() && self.about.as_ref().is_none_or(|(of, _)| *of <= step) {
            self.about = Some((step, about.to_owned()));
        }
    }

    pub(super) fn cannot_reach(&mut self, one: LeaseId, other: LeaseId, generation: GenerationId) {
        self.unreached.entry((one.min(other), one.max(other))).or_default().insert(generation);
    }

    /// The pairs that have not reached each other for too long.
    pub(super) fn apart(&self) -> impl Iterator<Item = (LeaseId, LeaseId)> {
        self.unreached.iter().filter(|(_, generations)| generations.len() >= PATIENCE).map(|(pair, _)| *pair)
    }

    /// A member that counted as lost is back.
    pub(super) fn forgive(&mut self, lease: LeaseId) {
        self.losses.retain(|loss| loss.lease != lease);
    }

    /// Members of one generation are lost together, when a machine is or when their step kills, and count once; so do those
    /// who were there together and have not trained. Grants of which nothing was heard may have got lost: as many are free as
    /// of other work.
    fn count(&self, free: u32) -> u32 {
        let heard = |loss: &&Loss| loss.heard_of || loss.generation.is_some();
        let together: BTreeSet<GenerationId> = self.losses.iter().filter_map(|loss| loss.generation).collect();
        let (mut alone, mut newest) = (0, None);
        for loss in self.losses.iter().filter(heard).filter(|loss| loss.generation.is_none()) {
            if Some(loss.lease) > newest {
                (alone, newest) = (alone + 1, Some(loss.newest));
            }
        }
        let unheard = self.losses.iter().filter(|loss| !heard(loss)).count();
        let count = together.len() + alone + unheard.saturating_sub(free as usize);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Why the training fails, if it has lost too much at this step.
    pub(super) fn verdict(&self, policy: &Policy) -> Option<String> {
        let count = self.count(policy.max_losses);
        if self.losses.is_empty() || count < policy.max_step_losses {
            return None;
        }
        let words: Vec<&str> = self.losses.iter().map(|loss| loss.words.as_str()).collect();
        let about = match &self.about {
            Some((step, about)) if *step == self.step => format!(" It learns from {about}."),
            Some((step, about)) => format!(" Step {} learned from {about}.", step + 1),
            None => String::new(),
        };
        let step = self.step + 1;
        Some(format!("step {step} lost members {count} times and was never done ({}).{about}", words.join("; ")))
    }
}
