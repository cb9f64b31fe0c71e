//! What members of a gang and their coordinator say to each other.

use crate::{GenerationId, LeaseId};

/// A member that has loaded what it needs, is in no generation, and waits for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its lease.
    pub lease: LeaseId,
    /// Where the other members reach it, host:port.
    pub address: String,
    /// The certificate that it shows to them, as DER; they take no other.
    pub certificate: Vec<u8>,
    /// Steps that it has done.
    pub step: u64,
    /// What the next step learns from, for whoever reads why it failed.
    pub about: String,
    /// How its last generation ended, unless that was in order.
    pub broken: Option<Broken>,
}

/// A generation that ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub generation: GenerationId,
    /// Why, in words.
    pub reason: String,
    /// The member that could not be reached, if that was the reason.
    pub unreachable: Option<LeaseId>,
}

/// The members of a gang that train together from now on, until one is lost or all are told to regroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The lease of the member that is told.
    pub lease: LeaseId,
    /// Which: later ones have higher numbers.
    pub number: GenerationId,
    /// Its place among the members.
    pub rank: u32,
    /// All of them, by rank.
    pub members: Vec<Peer>,
}

/// A member as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its lease.
    pub lease: LeaseId,
    /// Its worker's name.
    pub name: String,
    /// Where it is reached, host:port.
    pub address: String,
    /// The certificate that it shows, as DER.
    pub certificate: Vec<u8>,
}
