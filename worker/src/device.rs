//! The thread that owns the device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernels::Device;
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result};

type Command = Box<dyn FnOnce(&Device) + Send>;

/// A handle to the device's thread; commands run one after the other.
#[derive(Clone)]
pub(crate) struct DeviceThread {
    commands: mpsc::Sender<Command>,
}

impl DeviceThread {
    /// Starts the thread. It ends when the last handle is dropped.
    pub(crate) fn start(threads: usize) -> Result<Self> {
        let device = Device::cpu(threads)?;
        let (commands, mut inbox) = mpsc::channel::<Command>(4);
        std::thread::Builder::new()
            .name("device".to_owned())
            .spawn(move || {
                while let Some(command) = inbox.blocking_recv() {
                    command(&device);
                }
            })
            .map_err(|e| Error::Kernels(kernels::Error::Device(format!("cannot start the device thread: {e}"))))?;
        Ok(Self { commands })
    }

    /// Runs `work` on the device and waits for its result; a panic becomes an error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Device) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let command: Command = Box::new(move |device| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(device)));
            let _ = reply.send(outcome.unwrap_or_else(|panic| Err(Error::Panicked(words(&*panic)))));
        });
        let gone = || Error::Panicked("the device thread is gone".to_owned());
        self.commands.send(command).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
