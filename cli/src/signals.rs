//! What a process is told by signals: to end in order, and by a second one, to end at once.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// From the keyboard: SIGINT.
    Interrupted,
    /// By whoever runs it: SIGTERM.
    Terminated,
}

impl Told {
    /// The exit code of an end in order.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupted => exit::INTERRUPTED,
            Self::Terminated => exit::DRAINED,
        }
    }
}

/// Both signals. From the first on, the process ends only by its own doing.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Terminated,
            _ = self.interrupt.recv() => Told::Interrupted,
        }
    }
}
