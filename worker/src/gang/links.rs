//! The two streams of a member of a ring: to the next member, and from the one before.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use proto::{GenerationId, Peer};
use tokio_rustls::rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::identity::{self, Identity};
use super::seat::Closer;

/// Pause between two looks for a call, or two calls.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a caller has to say who it is, and a host to answer a call.
const SOON: Duration = Duration::from_secs(1);
/// A neighbour that does not answer for so long, data or none, is cut off from here: seconds.
const DEAF: i32 = 10;

/// A stream to the next member.
pub(super) type ToNext = StreamOwned<ClientConnection, TcpStream>;
/// A stream from the member before.
pub(super) type FromPrevious = StreamOwned<ServerConnection, TcpStream>;

/// Until when somebody is tried, and who may put an end to it before.
pub(super) struct Patience<'a> {
    /// Until when.
    pub(super) until: Instant,
    /// Whether it is no use any more.
    pub(super) over: &'a (dyn Fn() -> bool + Sync),
}

impl Patience<'_> {
    /// The time that is left; nothing when there is none, or no use.
    fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero() && !(self.over)()).then_some(left)
    }
}

/// Calls a member until it answers for this generation.
pub(super) fn call(
    identity: &Identity,
    number: GenerationId,
    peer: &Peer,
    patience: &Patience<'_>,
) -> Result<ToNext, String> {
    let mut last = "it does not answer".to_owned();
    while let Some(left) = patience.left() {
        match try_call(identity, number, peer, left) {
            Ok(stream) => return Ok(stream),
            Err(reason) => last = reason,
        }
        std::thread::sleep(PAUSE);
    }
    Err(last)
}

fn try_call(identity: &Identity, number: GenerationId, peer: &Peer, left: Duration) -> Result<ToNext, String> {
    let words = |e: std::io::Error| e.to_string();
    let tcp = connect(&peer.address, left.min(SOON))?;
    let _deadline = prepare(&tcp, left).map_err(words)?;
    let config = identity.calling(&peer.certificate).map_err(|e| e.to_string())?;
    let tls = ClientConnection::new(config, identity::name()).map_err(|e| e.to_string())?;
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(&number.0.to_le_bytes()).and_then(|()| stream.flush()).map_err(words)?;
    // Only a member that waits for this generation says its number again.
    let mut heard = [0; 8];
    stream.read_exact(&mut heard).map_err(words)?;
    if u64::from_le_bytes(heard) != number.0 {
        return Err("it is in another generation".to_owned());
    }
    unlimited(&stream.sock).map_err(words)?;
    Ok(stream)
}

/// Waits for the call of a member for this generation. Who else calls is sent away.
pub(super) fn answer(
    identity: &Identity,
    listener: &TcpListener,
    number: GenerationId,
    peer: &Peer,
    patience: &Patience<'_>,
) -> Result<FromPrevious, String> {
    let mut last = "it does not call".to_owned();
    while let Some(left) = patience.left() {
        match listener.accept() {
            Ok((tcp, _)) => match try_answer(identity, number, peer, tcp, left) {
                Ok(stream) => return Ok(stream),
                Err(reason) => last = reason,
            },
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

fn try_answer(
    identity: &Identity,
    number: GenerationId,
    peer: &Peer,
    tcp: TcpStream,
    left: Duration,
) -> Result<FromPrevious, String> {
    let words = |e: std::io::Error| e.to_string();
    tcp.set_nonblocking(false).map_err(words)?;
    // A stranger that calls and says nothing, or little, must not keep the member out that is meant.
    let _deadline = prepare(&tcp, left.min(SOON)).map_err(words)?;
    let config = identity.called(&peer.certificate).map_err(|e| e.to_string())?;
    let tls = ServerConnection::new(config).map_err(|e| e.to_string())?;
    let mut stream = StreamOwned::new(tls, tcp);
    let mut heard = [0; 8];
    stream.read_exact(&mut heard).map_err(words)?;
    if u64::from_le_bytes(heard) != number.0 {
        return Err("it calls for another generation".to_owned());
    }
    stream.write_all(&heard).and_then(|()| stream.flush()).map_err(words)?;
    unlimited(&stream.sock).map_err(words)?;
    Ok(stream)
}

/// What ends every wait on a stream.
pub(super) fn closer(tcp: &TcpStream) -> std::io::Result<Closer> {
    let tcp = tcp.try_clone()?;
    Ok(Box::new(move || drop(tcp.shutdown(Shutdown::Both)))) // it may be closed from the other side
}

/// Tries every address of a host.
fn connect(address: &str, each: Duration) -> Result<TcpStream, String> {
    let mut last = "its address names no host".to_owned();
    for address in address.to_socket_addrs().map_err(|e| e.to_string())? {
        match TcpStream::connect_timeout(&address, each) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

/// Sets limits for the beginning of a stream, and for its silence later on. The beginning is over when what is returned is
/// dropped; if that does not happen in time the stream is closed, since somebody who says a little now and then would keep to
/// the limits of single reads for ever.
fn prepare(tcp: &TcpStream, left: Duration) -> std::io::Result<Deadline> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(left))?;
    tcp.set_write_timeout(Some(left))?;
    watch(tcp)?;
    Ok(within(left, closer(tcp)?))
}

/// Something that has to be over in time: when this is dropped it is.
pub(crate) struct Deadline {
    _over: Sender<()>,
}

/// Ends something that takes longer.
pub(crate) fn within(time: Duration, close: Closer) -> Deadline {
    let (over, waits) = channel();
    let late = move || {
        if waits.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            close();
        }
    };
    // Without a thread there is no deadline, and everything else is as ever.
    let _ = std::thread::Builder::new().name("deadline".to_owned()).spawn(late);
    Deadline { _over: over }
}

/// A stream may be silent for as long as its member computes: from here on the system finds out who is gone.
fn unlimited(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_read_timeout(None)?;
    tcp.set_write_timeout(None)
}

/// Has the system ask a silent neighbour whether it is there, and give up what it does not confirm.
fn watch(tcp: &TcpStream) -> std::io::Result<()> {
    let option = |level: i32, name: i32, value: i32| {
        let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
        // SAFETY: the descriptor is open as long as `tcp` is, and `value` is an int of the length that is given.
        match unsafe { libc::setsockopt(tcp.as_raw_fd(), level, name, (&raw const value).cast(), len) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    option(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    option(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 2)?;
    option(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)?;
    #[cfg(target_os = "linux")]
    {
        option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, DEAF / 2)?;
        option(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, DEAF * 1000)?;
    }
    #[cfg(target_os = "macos")]
    option(libc::IPPROTO_TCP, libc::TCP_KEEPALIVE, DEAF / 2)?;
    Ok(())
}
