//! What is said about gangs.

use super::{Invalid, text};
use crate::gang::{Broken, Generation, Peer, Ready};
use crate::{GenerationId, LeaseId, pb};

impl TryFrom<pb::Ready> for Ready {
    type Error = Invalid;

    fn try_from(r: pb::Ready) -> Result<Self, Invalid> {
        let address = text(r.address, "ready.address")?;
        if r.certificate.is_empty() {
            return Err(Invalid("ready.certificate"));
        }
        let (lease, certificate, broken) = (LeaseId(r.lease), r.certificate, r.broken.map(Into::into));
        Ok(Self { lease, address, certificate, step: r.step, about: r.about, broken })
    }
}

impl From<Ready> for pb::Ready {
    fn from(r: Ready) -> Self {
        let (certificate, broken) = (r.certificate, r.broken.map(Into::into));
        Self { lease: r.lease.0, address: r.address, certificate, step: r.step, about: r.about, broken }
    }
}

impl From<pb::Broken> for Broken {
    fn from(b: pb::Broken) -> Self {
        let unreachable = (b.unreachable > 0).then_some(LeaseId(b.unreachable));
        Self { generation: GenerationId(b.generation), reason: b.reason, unreachable }
    }
}

impl From<Broken> for pb::Broken {
    fn from(b: Broken) -> Self {
        let unreachable = b.unreachable.map_or(0, |lease| lease.0);
        Self { generation: b.generation.0, reason: b.reason, unreachable }
    }
}

impl TryFrom<pb::Generation> for Generation {
    type Error = Invalid;

    fn try_from(g: pb::Generation) -> Result<Self, Invalid> {
        let members = g.members.into_iter().map(Peer::try_from).collect::<Result<Vec<_>, _>>()?;
        // The place that it names is the member that it is for.
        match members.get(g.rank as usize) {
            Some(own) if own.lease.0 == g.lease => {}
            _ => return Err(Invalid("generation.rank")),
        }
        Ok(Self { lease: LeaseId(g.lease), number: GenerationId(g.number), rank: g.rank, members })
    }
}

impl From<Generation> for pb::Generation {
    fn from(g: Generation) -> Self {
        let members = g.members.into_iter().map(Into::into).collect();
        Self { lease: g.lease.0, number: g.number.0, rank: g.rank, members }
    }
}

impl TryFrom<pb::Peer> for Peer {
    type Error = Invalid;

    fn try_from(p: pb::Peer) -> Result<Self, Invalid> {
        let address = text(p.address, "peer.address")?;
        Ok(Self { lease: LeaseId(p.lease), name: p.name, address, certificate: p.certificate })
    }
}

impl From<Peer> for pb::Peer {
    fn from(p: Peer) -> Self {
        Self { lease: p.lease.0, name: p.name, address: p.address, certificate: p.certificate }
    }
}
