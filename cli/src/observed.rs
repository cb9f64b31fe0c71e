//! The port on which this process is watched.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use coordinator::Observer;
use observe::{Door, Watched, figures};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::exit::BadRequest;

/// Opens the port, for as long as this process lives: it tells of its end, too.
pub(crate) async fn open_door(listen: SocketAddr, watched: Arc<dyn Watched>) -> Result<()> {
    let door = Door::open(listen, watched, CancellationToken::new()).await;
    let door = door.map_err(|e| BadRequest(format!("--observe: cannot listen on {listen}: {e}")))?;
    info!(address = %door.address(), "health and figures: /livez, /readyz, /metrics");
    Ok(())
}

/// A coordinator from its start to its end: it lives, and is ready while it leads.
#[derive(Default)]
pub(crate) struct Lifetime {
    leading: OnceLock<Observer>,
    deposed: OnceLock<String>,
}

impl Lifetime {
    /// Says who tells of it from now on.
    pub(crate) fn leads(&self, observer: Observer) {
        let _ = self.leading.set(observer);
    }

    /// It leads no more, and waits for its end.
    pub(crate) fn deposed(&self, why: String) {
        let _ = self.deposed.set(why);
    }
}

#[async_trait::async_trait]
impl Watched for Lifetime {
    async fn live(&self) -> Result<(), String> {
        match self.leading.get() {
            Some(observer) if self.deposed.get().is_none() => observer.live().await,
            _ => Ok(()),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        if let Some(why) = self.deposed.get() {
            return Err(why.clone());
        }
        match self.leading.get() {
            Some(observer) => observer.ready().await,
            None => Err("it does not lead yet".to_owned()),
        }
    }

    async fn figures(&self) -> String {
        match self.leading.get() {
            Some(observer) => observer.figures().await,
            None => figures().page("coordinator", env!("CARGO_PKG_VERSION"), |_| {}),
        }
    }
}
