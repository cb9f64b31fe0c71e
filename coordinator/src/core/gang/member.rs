//! A member of a gang as its coordinator sees it.

use proto::{GenerationId, LeaseId, Peer, Ready, WorkerId};

use crate::core::Action;

/// A lease of the training.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) name: String,
    pub(super) stand: Stand,
    /// It has been in a generation, and so has the state of the training.
    pub(super) veteran: bool,
    /// The generation that it was in last.
    pub(super) last: Option<GenerationId>,
    /// Steps that it is known to have done.
    pub(super) step: u64,
    /// It is to leave, and comes into no further generation.
    pub(super) out: bool,
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// It loads what it needs, or is on its way out of a generation that it has not told of.
    Loading,
    /// It waits for a generation.
    Waiting(Ready),
    /// It is in a generation, and knows so much of its end.
    Training { generation: GenerationId, told: Told },
}

/// What a member was told of the end of its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Nothing,
    Regroup,
    Abort,
}

impl Stand {
    pub(super) fn generation(&self) -> Option<GenerationId> {
        match self {
            Self::Training { generation, .. } => Some(*generation),
            _ => None,
        }
    }
}

impl Member {
    pub(super) fn new(worker: WorkerId, name: &str) -> Self {
        Self { worker, name: name.to_owned(), stand: Stand::Loading, veteran: false, last: None, step: 0, out: false }
    }

    /// Whether it would be in a generation that is opened now.
    pub(super) fn waits(&self) -> bool {
        !self.out && matches!(self.stand, Stand::Waiting(_))
    }

    /// As the others see it, while it waits.
    pub(super) fn peer(&self) -> Option<Peer> {
        let Stand::Waiting(Ready { lease, address, certificate, .. }) = &self.stand else { return None };
        let (name, address, certificate) = (self.name.clone(), address.clone(), certificate.clone());
        Some(Peer { lease: *lease, name, address, certificate })
    }

    /// Its name and where it is reached, for people.
    pub(super) fn place(&self) -> String {
        match &self.stand {
            Stand::Waiting(ready) => format!("{} ({})", self.name, ready.address),
            _ => self.name.clone(),
        }
    }

    /// Tells it once that its generation is to end in order.
    pub(super) fn regroup(&mut self, lease: LeaseId, actions: &mut Vec<Action>) {
        if let Stand::Training { generation, told: told @ Told::Nothing } = &mut self.stand {
            *told = Told::Regroup;
            actions.push(Action::Regroup(self.worker, lease, *generation));
        }
    }

    /// Tells it once that its generation is over.
    pub(super) fn abort(&mut self, lease: LeaseId, reason: &str, actions: &mut Vec<Action>) {
        if let Stand::Training { generation, told: told @ (Told::Nothing | Told::Regroup) } = &mut self.stand {
            *told = Told::Abort;
            actions.push(Action::Abort(self.worker, lease, *generation, reason.to_owned()));
        }
    }
}
