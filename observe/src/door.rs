//! The port that is asked: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A process that is watched.
#[async_trait]
pub trait Watched: Send + Sync + 'static {
    /// Whether it should go on; else why it should be started again. The object store has no say: a store that is away is no
    /// reason to restart anything.
    async fn live(&self) -> Result<(), String>;

    /// Whether it should be given work; else why not.
    async fn ready(&self) -> Result<(), String>;

    /// Its figures.
    async fn figures(&self) -> String;
}

/// An open port.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
}

impl Door {
    /// Listens, and answers until `stop` is cancelled.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open(listen: SocketAddr, watched: Arc<dyn Watched>, stop: CancellationToken) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let paths = Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(watched);
        tokio::spawn(async move {
            let served = axum::serve(listener, paths).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!(%error, %address, "nobody can ask for health and figures any more");
            }
        });
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn live(State(watched): State<Arc<dyn Watched>>) -> Response {
    told(watched.live().await)
}

async fn ready(State(watched): State<Arc<dyn Watched>>) -> Response {
    told(watched.ready().await)
}

fn told(outcome: Result<(), String>) -> Response {
    match outcome {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(watched): State<Arc<dyn Watched>>) -> Response {
    let form = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (form, watched.figures().await).into_response()
}
