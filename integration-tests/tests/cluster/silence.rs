//! A network that swallows everything and closes nothing is noticed on both sides.

use std::time::{Duration, Instant};

use proto::{ANSWER, Endpoint, QUIET};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::site::{Site, register};

/// Carries bytes to the coordinator and back, until it is told to swallow them.
struct Wire {
    address: std::net::SocketAddr,
    silent: watch::Sender<bool>,
    /// Tells when a side has hung up: `true` for the coordinator.
    hung_up: mpsc::Receiver<bool>,
}

impl Wire {
    async fn to(coordinator: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, watching) = watch::channel(false);
        let (hangs_up, hung_up) = mpsc::channel(4);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", coordinator.port())).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server, watching.clone(), hangs_up.clone(), false));
            carry(from_server, to_client, watching, hangs_up, true).await;
        });
        Self { address, silent, hung_up }
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silent: watch::Receiver<bool>,
    hangs_up: mpsc::Sender<bool>,
    coordinator: bool,
) {
    let mut bytes = [0_u8; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if !*silent.borrow() && to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
    let _ = hangs_up.send(coordinator).await;
    // The other side is to find out by itself.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn both_sides_notice_a_silent_partition() {
    let site = Site::guarded(false).await;
    let mut wire = Wire::to(site.coordinator.address()).await;
    let endpoint = Endpoint { url: format!("https://{}", wire.address), ..site.holder("worker") };
    let mut session = register(&endpoint).await.unwrap();
    wire.silent.send(true).unwrap();
    let began = Instant::now();
    let limit = QUIET + ANSWER + Duration::from_secs(3);
    // No heartbeat is sent: nothing but HTTP/2 itself could tell.
    let broken =
        tokio::time::timeout(limit, async { while let Ok(Some(_)) = session.from_coordinator.message().await {} });
    broken.await.expect("the worker notices");
    let mut both = Vec::new();
    while both.len() < 2 {
        let left = limit.saturating_sub(began.elapsed());
        both.push(tokio::time::timeout(left, wire.hung_up.recv()).await.expect("both sides hang up").unwrap());
    }
    both.sort_unstable();
    assert_eq!(both, [false, true]);
    drop(session.to_coordinator);
}
