//! The thread that owns the device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use kernels::Device;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Error, Result, tasks};

/// Does its work, and says why the device is lost if it is.
type Command = Box<dyn FnOnce(&Device) -> Option<String> + Send>;

/// A handle to the device's thread; commands run one after the other.
///
/// A device that is lost, after a kernel went astray for example, costs the command that found it so. It is opened anew before the
/// next one; where that does not help, the thread ends and says why.
#[derive(Clone)]
pub(crate) struct DeviceThread {
    commands: mpsc::Sender<Command>,
    end: Arc<End>,
}

/// The end of the thread before its time.
#[derive(Default)]
struct End {
    come: CancellationToken,
    cause: OnceLock<String>,
}

impl DeviceThread {
    /// Starts the thread with a device that `open` opens, and opens anew when it is lost. It ends when the last handle is dropped.
    pub(crate) fn start(mut open: impl FnMut() -> kernels::Result<Device> + Send + 'static) -> Result<Self> {
        let mut device = open()?;
        let (commands, mut inbox) = mpsc::channel::<Command>(4);
        let end = Arc::new(End::default());
        let ours = Arc::clone(&end);
        let work = move || {
            while let Some(command) = inbox.blocking_recv() {
                let Some(cause) = command(&device) else { continue };
                warn!(cause, "device lost, opening it anew");
                match reopen(device, &mut open) {
                    Ok(fresh) => device = fresh,
                    Err(e) => {
                        let _ = ours.cause.set(format!("{cause}; opening it anew does not help: {e}"));
                        ours.come.cancel();
                        return;
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("device".to_owned())
            .spawn(work)
            .map_err(|e| Error::Kernels(kernels::Error::Device(format!("cannot start the device thread: {e}"))))?;
        Ok(Self { commands, end })
    }

    /// Runs `work` on the device and waits for its result; a panic becomes an error, and so does what a kernel does wrong after
    /// `work` is over.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Device) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let command: Command = Box::new(move |device| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(device)));
            let outcome = outcome.unwrap_or_else(|panic| Err(Error::Panicked(words(&*panic))));
            let (outcome, lost) = settle(outcome, device.wait());
            let _ = reply.send(outcome);
            lost
        });
        self.commands.send(command).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Waits until the thread has ended before its time, for the cause.
    pub(crate) async fn ended(&self) -> String {
        self.end.come.cancelled().await;
        self.end.cause.get().cloned().unwrap_or_default()
    }

    fn gone(&self) -> Error {
        match self.end.cause.get() {
            Some(cause) => Error::DeviceLost(cause.clone()),
            None => Error::Panicked("the device thread is gone".to_owned()),
        }
    }
}

/// The outcome of a command whose kernels have ended as well, and why the device is lost if it is.
fn settle<T>(outcome: Result<T>, waited: kernels::Result<()>) -> (Result<T>, Option<String>) {
    if let Err(e) = &outcome
        && e.lost_device()
    {
        let cause = e.to_string();
        return (outcome, Some(cause));
    }
    let Err(late) = waited else { return (outcome, None) };
    let lost = late.is_lost().then(|| late.to_string());
    // What went wrong before may have come of the loss, which can be mended; work that was taken back counts for nothing.
    let kept = matches!(&outcome, Err(e) if lost.is_none() || matches!(e, Error::Stopped(_)));
    (if kept { outcome } else { Err(late.into()) }, lost)
}

fn reopen(lost: Device, open: &mut impl FnMut() -> kernels::Result<Device>) -> kernels::Result<Device> {
    // A card is given back by the last who holds some of its memory, and is as lost as before until then.
    tasks::forget();
    drop(lost);
    let fresh = open()?;
    fresh.wait()?;
    Ok(fresh)
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Class;

    /// A device whose number of threads says how often it was opened; after some times it cannot be.
    fn device(most: usize) -> DeviceThread {
        let mut opened = 0;
        let open = move || {
            opened += 1;
            if opened > most { Err(lost("still bad")) } else { Device::cpu(opened) }
        };
        DeviceThread::start(open).unwrap()
    }

    fn lost(what: &str) -> kernels::Error {
        kernels::Error::Lost(what.to_owned())
    }

    async fn lose(device: &DeviceThread) -> Error {
        device.run(|_| Err::<(), _>(Error::Kernels(lost("an illegal address")))).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_lost_device_is_opened_anew_for_the_next_command() {
        let device = device(3);
        let times = async || device.run(|device| Ok(device.threads())).await.unwrap();
        assert_eq!(times().await, 1);
        let said = lose(&device).await;
        assert_eq!((said.to_string().as_str(), said.class()), ("the device is lost: an illegal address", Class::Retry));
        assert_eq!(times().await, 2);
        // Other errors and panics leave it as it is.
        let refused = device.run(|_| Err::<(), _>(kernels::Error::Device("no".to_owned()).into())).await;
        assert_eq!(refused.unwrap_err().class(), Class::Fatal);
        assert!(
            matches!(device.run(|_| -> Result<()> { panic!("oh") }).await, Err(Error::Panicked(what)) if what == "oh")
        );
        assert_eq!(times().await, 2);
        // It may have been found by a model.
        let model = Error::Model(model::Error::Kernel(lost("an error of memory")));
        assert_eq!(device.run(|_| Err::<(), _>(model)).await.unwrap_err().class(), Class::Retry);
        assert_eq!(times().await, 3);
    }

    #[tokio::test]
    async fn a_device_that_stays_lost_ends_its_thread_with_the_cause() {
        let device = device(1);
        assert_eq!(lose(&device).await.class(), Class::Retry);
        let cause = device.ended().await;
        assert!(cause.contains("an illegal address") && cause.contains("still bad"), "{cause}");
        let next = device.run(|_| Ok(())).await.unwrap_err();
        assert!(matches!(&next, Error::DeviceLost(said) if *said == cause), "{next}");
        assert_eq!(next.class(), Class::Stopped);
    }

    #[test]
    fn what_a_kernel_does_wrong_after_the_work_is_over_counts() {
        let late = || Err(lost("late"));
        let (outcome, cause) = settle(Ok(()), late());
        assert!(outcome.unwrap_err().lost_device() && cause.unwrap().contains("late"));
        let (outcome, cause) = settle(Err::<(), _>(Error::Panicked("came of it".to_owned())), late());
        assert!(outcome.unwrap_err().lost_device() && cause.is_some());
        let (outcome, cause) = settle(Err::<(), _>(Error::Stopped("taken back".to_owned())), late());
        assert!(matches!(outcome, Err(Error::Stopped(_))) && cause.is_some());
        let (outcome, cause) = settle(Ok(()), Err(kernels::Error::Device("late".to_owned())));
        assert!(outcome.is_err() && cause.is_none());
        let (outcome, cause) = settle(Ok(()), Ok(()));
        assert!(outcome.is_ok() && cause.is_none());
    }
}
