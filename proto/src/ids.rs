//! Ids as types, so that one is never taken for another.

use std::fmt;

/// A worker's session with one coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// One granting of shards to one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// The term that gave it out.
    #[must_use]
    pub fn term(self) -> u64 {
        self.0 >> 32
    }

    /// The number of a lease of a term: no two terms give out the same.
    #[must_use]
    pub fn of(term: u64, number: u64) -> Self {
        Self((term << 32) | (number & u64::from(u32::MAX)))
    }
}

/// One membership of a gang: which workers sum their gradients together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

impl GenerationId {
    /// The number of a generation of a term: those of a later term are higher.
    #[must_use]
    pub fn of(term: u64, number: u64) -> Self {
        Self((term << 32) | (number & u64::from(u32::MAX)))
    }

    /// The term that opened it.
    #[must_use]
    pub fn term(self) -> u64 {
        self.0 >> 32
    }
}

/// `<name>-<12 hex>` of the stage digests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub String);

impl JobId {
    /// Whether somebody means this job who names it by its id, or by its name: an id is a name, a hyphen and a digest.
    #[must_use]
    pub fn is_meant_by(&self, word: &str) -> bool {
        self.0 == word || self.0.rsplit_once('-').is_some_and(|(name, _)| name == word)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease-{}.{}", self.term(), self.0 & u64::from(u32::MAX))
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation-{}.{}", self.term(), self.0 & u64::from(u32::MAX))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
