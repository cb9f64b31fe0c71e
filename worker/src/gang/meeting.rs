//! Where a member is found by the others, and how they become a ring.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use kernels::collective::{Collective, local, tcp};
use proto::{Broken, Generation, LeaseId, Ready};

use super::identity::Identity;
use super::links::{Patience, answer, call, closer};
use super::seat::Seat;
use crate::{Error, Result};

/// How long the members of a generation have to find each other.
const MEET: Duration = Duration::from_secs(10);

/// How others reach this worker.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// The coordinator's host and port: the address that leads there is the one that others find, if nothing else is said.
    pub(crate) coordinator: String,
    /// What was said: the host that others find, with or without a port.
    pub(crate) told: Option<String>,
}

/// A member's door.
pub(crate) struct Meeting {
    listener: TcpListener,
    address: String,
    identity: Identity,
}

/// What came of meeting the others.
pub(crate) enum Met {
    /// The members are connected.
    Ring(Box<dyn Collective>),
    /// They are not.
    Broken(Broken),
}

/// Reads `HOST[:PORT]`, with IPv6 addresses in brackets; without a port it is 0, any free one.
///
/// # Errors
/// Says what is no port.
pub fn host_and_port(text: &str) -> Result<(String, u16), String> {
    match text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']')) {
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((host.to_owned(), port.parse().map_err(|_| format!("`{port}` is no port"))?))
        }
        None => Ok((text.to_owned(), 0)),
    }
}

impl Meeting {
    /// Opens a door that others can find.
    pub(crate) fn open(reach: &Reach) -> Result<Self> {
        let (host, port) = reach.resolve()?;
        if let Err(e) = (host.as_str(), port).to_socket_addrs() {
            tracing::warn!(host, error = %e, "others may not find this worker: its --peers names no host that is known here");
        }
        let place = SocketAddr::new(door(&host), port);
        let failed =
            |e: std::io::Error| Error::Gang(format!("cannot listen on {place} for the other members of the gang: {e}"));
        let listener = TcpListener::bind(place).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let address = format!("{host}:{}", listener.local_addr().map_err(failed)?.port());
        Ok(Self { listener, address, identity: Identity::generate()? })
    }

    /// What the coordinator is told of this member.
    pub(crate) fn ready(&self, lease: LeaseId, step: u64, about: String, broken: Option<Broken>) -> Ready {
        let (address, certificate) = (self.address.clone(), self.identity.certificate().to_vec());
        Ready { lease, address, certificate, step, about, broken }
    }

    /// Meets the other members of a generation. The streams are the seat's to close.
    pub(crate) fn ring(&self, generation: &Generation, seat: &Seat, over: &(dyn Fn() -> bool + Sync)) -> Met {
        let world = generation.members.len();
        if world == 1 {
            seat.enter(generation.number, Vec::new());
            return Met::Ring(Box::new(local::alone()));
        }
        match self.connect(generation, seat, over) {
            Ok(ring) => Met::Ring(Box::new(ring)),
            Err(broken) => Met::Broken(broken),
        }
    }

    fn connect(
        &self,
        generation: &Generation,
        seat: &Seat,
        over: &(dyn Fn() -> bool + Sync),
    ) -> Result<tcp::Ring, Broken> {
        let (number, members) = (generation.number, &generation.members);
        let (rank, world) = (generation.rank as usize, members.len());
        let (next, previous) = (&members[(rank + 1) % world], &members[(rank + world - 1) % world]);
        let patience = Patience { until: Instant::now() + MEET, over };
        let (to_next, from_previous) = std::thread::scope(|scope| {
            let called = scope.spawn(|| answer(&self.identity, &self.listener, number, previous, &patience));
            (call(&self.identity, number, next, &patience), called.join())
        });
        let missed = |peer: &proto::Peer, reason: String| Broken {
            generation: number,
            reason: format!("cannot reach {} at {}: {reason}", peer.name, peer.address),
            unreachable: Some(peer.lease).filter(|_| !over()),
        };
        let to_next = to_next.map_err(|reason| missed(next, reason))?;
        let from_previous = from_previous.unwrap_or_else(|_| Err("a panic".to_owned()));
        let from_previous = from_previous.map_err(|reason| missed(previous, reason))?;
        let failed = |reason: String| Broken { generation: number, reason, unreachable: None };
        let closers = [&to_next.sock, &from_previous.sock].map(closer).into_iter().collect::<std::io::Result<Vec<_>>>();
        seat.enter(number, closers.map_err(|e| failed(e.to_string()))?);
        tcp::Ring::new(rank, world, to_next, from_previous).map_err(|e| failed(e.to_string()))
    }
}

impl Reach {
    /// The host that others find, and the port to listen on: 0 takes a free one.
    fn resolve(&self) -> Result<(String, u16)> {
        match &self.told {
            Some(told) => host_and_port(told).map_err(|e| Error::Gang(format!("--peers {told}: {e}"))),
            None => Ok((self.outgoing()?.to_string(), 0)),
        }
    }

    /// The address of this machine on the way to the coordinator. Nothing is sent.
    fn outgoing(&self) -> Result<IpAddr> {
        let failed = |e: std::io::Error| {
            Error::Gang(format!("cannot tell by which address others reach this machine: {e}; name it with --peers"))
        };
        let mut addresses = self.coordinator.to_socket_addrs().map_err(failed)?;
        let there = addresses.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let any: SocketAddr = if there.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).map_err(failed)?;
        socket.connect(there).map_err(failed)?;
        Ok(socket.local_addr().map_err(failed)?.ip())
    }
}

/// Where to listen for those who look for a host: on this machine's own address where only this machine finds it.
fn door(host: &str) -> IpAddr {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}
