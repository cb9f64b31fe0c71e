//! The thread that owns the device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use kernels::Device;
use observe::figures;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{Span, warn};

use crate::kept::{IDLE, Kept};
use crate::{Error, Result, tasks};

/// Does its work, and says why the device is lost if it is.
type Command = Box<dyn FnOnce(&Device, &mut Kept) -> Option<String> + Send>;

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
    /// To be called in a runtime.
    pub(crate) fn start(mut open: impl FnMut() -> kernels::Result<Device> + Send + 'static) -> Result<Self> {
        let mut device = open()?;
        let (commands, mut inbox) = mpsc::channel::<Command>(4);
        let end = Arc::new(End::default());
        let ours = Arc::clone(&end);
        let runtime = Handle::current();
        let work = move || {
            let mut kept = Kept::default();
            while let Some(command) = next(&runtime, &mut inbox, &mut kept, IDLE) {
                let Some(cause) = command(&device, &mut kept) else { continue };
                warn!(cause, "device lost, opening it anew");
                kept.forget();
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
        work: impl FnOnce(&Device, &mut Kept) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        let command: Command = Box::new(move |device, kept| {
            let _within = span.enter();
            let outcome = catch_unwind(AssertUnwindSafe(|| work(device, kept)));
            let outcome = outcome.unwrap_or_else(|panic| Err(Error::Panicked(words(&*panic))));
            if !matches!(outcome, Ok(_) | Err(Error::Stopped(_))) {
                kept.forget(); // whatever was wrong may be wrong with it
            }
            let (outcome, lost) = settle(outcome, device.wait());
            tell_free(device);
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

/// The next command. A thread that waits for long gives back the memory of what it keeps meanwhile.
fn next(
    runtime: &Handle,
    inbox: &mut mpsc::Receiver<Command>,
    kept: &mut Kept,
    idle: std::time::Duration,
) -> Option<Command> {
    let soon = runtime.block_on(async { tokio::time::timeout(idle, inbox.recv()).await });
    soon.unwrap_or_else(|_| {
        kept.forget();
        tasks::forget();
        inbox.blocking_recv()
    })
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

/// Of a processor the system tells what is free.
fn tell_free(device: &Device) {
    if let Some(free) = device.free_bytes().filter(|_| !device.is_cpu()) {
        figures().device_has_free(free);
    }
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
    use std::time::Duration;

    use super::*;
    use crate::Class;
    use crate::kept::tests::fits;

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
        device.run(|_, _| Err::<(), _>(Error::Kernels(lost("an illegal address")))).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_lost_device_is_opened_anew_for_the_next_command() {
        let device = device(3);
        let times = async || device.run(|device, _| Ok(device.threads())).await.unwrap();
        assert_eq!(times().await, 1);
        let said = lose(&device).await;
        assert_eq!((said.to_string().as_str(), said.class()), ("the device is lost: an illegal address", Class::Retry));
        assert_eq!(times().await, 2);
        // Other errors and panics leave it as it is.
        let refused = device.run(|_, _| Err::<(), _>(kernels::Error::Device("no".to_owned()).into())).await;
        assert_eq!(refused.unwrap_err().class(), Class::Fatal);
        assert!(
            matches!(device.run(|_, _| -> Result<()> { panic!("oh") }).await, Err(Error::Panicked(what)) if what == "oh")
        );
        assert_eq!(times().await, 2);
        // It may have been found by a model.
        let model = Error::from(model::Error::Kernel(lost("an error of memory")));
        assert_eq!(device.run(|_, _| Err::<(), _>(model)).await.unwrap_err().class(), Class::Retry);
        assert_eq!(times().await, 3);
    }

    #[tokio::test]
    async fn a_device_that_stays_lost_ends_its_thread_with_the_cause() {
        let device = device(1);
        assert_eq!(lose(&device).await.class(), Class::Retry);
        let cause = device.ended().await;
        assert!(cause.contains("an illegal address") && cause.contains("still bad"), "{cause}");
        let next = device.run(|_, _| Ok(())).await.unwrap_err();
        assert!(matches!(&next, Error::DeviceLost(said) if *said == cause), "{next}");
        assert_eq!(next.class(), Class::Stopped);
    }

    /// What is kept is a number here; it is made anew where none is kept.
    async fn kept_or(device: &DeviceThread, number: u32) -> u32 {
        device.run(move |_, kept| Ok(*kept.or_else(fits("x"), || Ok(number))?)).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_goes_with_an_error_a_panic_and_the_device() {
        let device = device(2);
        assert_eq!((kept_or(&device, 1).await, kept_or(&device, 2).await), (1, 1));
        let stopped = device.run(|_, _| Err::<(), _>(Error::Stopped("taken back".to_owned()))).await;
        assert!(stopped.is_err() && kept_or(&device, 3).await == 1);
        let refused = device.run(|_, _| Err::<(), _>(kernels::Error::Device("no".to_owned()).into())).await;
        assert!(refused.is_err() && kept_or(&device, 4).await == 4);
        assert!(device.run(|_, _| -> Result<()> { panic!("oh") }).await.is_err() && kept_or(&device, 5).await == 5);
        lose(&device).await;
        assert_eq!(kept_or(&device, 6).await, 6);
    }

    #[tokio::test]
    async fn an_idle_thread_keeps_nothing() {
        for (idle, left) in [(Duration::from_millis(10), 2), (Duration::from_secs(600), 1)] {
            let (commands, mut inbox) = mpsc::channel::<Command>(1);
            let runtime = Handle::current();
            let thread = tokio::task::spawn_blocking(move || {
                let mut kept = Kept::default();
                kept.or_else(fits("x"), || Ok(1)).unwrap();
                assert!(next(&runtime, &mut inbox, &mut kept, idle).is_some(), "it waits on");
                *kept.or_else(fits("x"), || Ok(2)).unwrap()
            });
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(commands.send(Box::new(|_, _| None)).await.is_ok());
            assert_eq!(thread.await.unwrap(), left, "{idle:?}");
        }
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
