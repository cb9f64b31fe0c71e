//! What a worker tells those who watch it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use observe::{Watched, certificate, figures};

/// Whether a worker has a coordinator. A worker that hangs ends by itself, so one that answers lives.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    registered: Arc<AtomicBool>,
    leaving: Arc<AtomicBool>,
    certificate: Option<PathBuf>,
}

impl Observer {
    /// Of a worker that shows a certificate: it reads the file whenever it connects.
    #[must_use]
    pub fn of_certificate(certificate: Option<PathBuf>) -> Self {
        Self { certificate, ..Self::default() }
    }

    /// Notes that the worker was told to leave: it hands back what it holds, and takes no more.
    pub fn leaves(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Notes that a session has begun or ended.
    pub(crate) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }
}

#[async_trait]
impl Watched for Observer {
    async fn live(&self) -> Result<(), String> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), String> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err("leaving".to_owned());
        }
        if self.registered.load(Ordering::Relaxed) { Ok(()) } else { Err("no coordinator".to_owned()) }
    }

    async fn figures(&self) -> String {
        figures().page("worker", env!("CARGO_PKG_VERSION"), |registry| {
            certificate::tell(registry, self.certificate.as_deref().and_then(certificate::end));
        })
    }
}
