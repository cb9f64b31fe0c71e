//! Where connections come in.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::Connection;
use super::fresh::Fresh;
use super::guard::Guard;
use super::refusals::Refusals;
use super::tls::ServerTls;
use super::tokens::Tokens;
use super::{AccessError, AccessFiles, tls};

/// How long a handshake may take; who dawdles is sent away.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at one time.
const HANDSHAKES: usize = 4096;
/// How long somebody who was refused may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);

/// The door of a coordinator: what is asked of a connection, and of every request on it.
pub(crate) struct Door {
    tls: Option<Arc<Fresh<ServerTls>>>,
    guard: Guard,
}

/// The certificate that a door shows, if it shows one.
#[derive(Clone)]
pub(crate) struct ShownCertificate(Option<Arc<Fresh<ServerTls>>>);

impl ShownCertificate {
    /// For a door that shows none.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(None);

    /// When it ends, in seconds since 1970. Files that cannot be used are not shown, whatever they say.
    pub(crate) fn end(&self) -> Option<i64> {
        self.0.as_ref()?.latest().end
    }
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShownCertificate").field(&self.end()).finish()
    }
}

impl Door {
    /// A door that stands open.
    pub(crate) fn open() -> Self {
        Self { tls: None, guard: Guard::Open }
    }

    /// A door with TLS and a guard.
    pub(crate) fn guarded(files: &AccessFiles) -> Result<Self, AccessError> {
        let watched = vec![files.tls_cert.clone(), files.tls_key.clone(), files.client_ca.clone()];
        let own = files.clone();
        let tls = Fresh::new(watched, move || tls::server(&own))?;
        let tokens = files.tokens.clone().map(|file| Fresh::new(vec![file.clone()], move || Tokens::read(&file)));
        Ok(Self { tls: Some(Arc::new(tls)), guard: Guard::Roles { tokens: tokens.transpose()?.map(Arc::new) } })
    }

    /// The layer that looks at every request.
    pub(crate) fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// What it shows to whoever connects.
    pub(crate) fn certificate(&self) -> ShownCertificate {
        ShownCertificate(self.tls.clone())
    }

    /// Connections that have passed, until `stop`.
    pub(crate) fn connections(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Stream<Item = io::Result<Connection>> {
        let (passed, connections) = mpsc::channel(64);
        tokio::spawn(async move { stop.run_until_cancelled(receive(listener, self.tls, passed)).await });
        ReceiverStream::new(connections)
    }
}

async fn receive(
    listener: TcpListener,
    tls: Option<Arc<Fresh<ServerTls>>>,
    passed: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let refusals = Arc::new(Refusals::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = passed.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, say: others will close theirs.
                warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Messages are small and waited for.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &tls else {
            let _ = passed.send(Ok(Connection::plain(stream, address))).await;
            continue;
        };
        let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (acceptor, passed, refusals) =
            (TlsAcceptor::from(Arc::clone(&tls.latest().config)), passed.clone(), Arc::clone(&refusals));
        tokio::spawn(async move {
            if let Some(connection) = shake_hands(&acceptor, stream, address, &refusals).await {
                let _ = passed.send(Ok(connection)).await;
            }
            drop(place);
        });
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    refusals: &Refusals,
) -> Option<Connection> {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => return Some(Connection::secured(stream, address)),
        Ok(Err((reason, stream))) => {
            refusals.tell(address, &reason);
            see_out(stream).await;
        }
        Err(_) => refusals.tell(address, &"no TLS handshake in time"),
    }
    None
}

/// Reads what is still on its way: a socket closed with unread bytes is reset, and the alert that says why would be lost.
async fn see_out(mut stream: TcpStream) {
    let rest = async {
        let _ = stream.shutdown().await;
        let mut unread = [0_u8; 1024];
        while matches!(stream.read(&mut unread).await, Ok(n) if n > 0) {}
    };
    let _ = tokio::time::timeout(FAREWELL, rest).await;
}
