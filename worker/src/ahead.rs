//! Makes the next piece of work while the device does the present one.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kernels::Device;

use crate::{Error, Result};

/// Makes a piece of every item and has them taken in order. `take` may ask which share of the time until then went into waiting for
/// pieces: near 0, the device is never idle for want of them.
///
/// Beside a card that is done by threads of their own, as many as the device has, at most one piece ahead. A processor has nothing
/// that would be idle meanwhile.
///
/// # Errors
/// The first error of `make` or `take`; [`Error::Kernels`] if threads cannot be started.
pub(crate) fn ahead<T: Send, P: Send>(
    device: &Device,
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    make: impl Fn(T) -> Result<P> + Send + Sync,
    mut take: impl FnMut(P, &Waiting) -> Result<()>,
) -> Result<()> {
    let mut waiting = Waiting { began: Instant::now(), waited: Duration::ZERO };
    let mut items = items.into_iter();
    if device.is_cpu() {
        return items.try_for_each(|item| {
            let piece = waiting.during(|| make(item))?;
            take(piece, &waiting)
        });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(device.threads()).build();
    let pool = pool.map_err(|e| Error::Kernels(kernels::Error::Device(format!("cannot start threads: {e}"))))?;
    let (give, pieces) = sync_channel(1);
    std::thread::scope(|scope| {
        // Dropped with an early end, so that nobody waits for a place in it.
        let pieces = pieces;
        scope.spawn(move || {
            for item in items {
                let piece = pool.install(|| make(item));
                let last = piece.is_err();
                // Nobody takes any more once something has failed.
                if give.send(piece).is_err() || last {
                    return;
                }
            }
        });
        while let Ok(piece) = waiting.during(|| pieces.recv()) {
            take(piece?, &waiting)?;
        }
        Ok(())
    })
}

/// The time since the first piece was asked for, and how much of it went into waiting.
pub(crate) struct Waiting {
    began: Instant,
    waited: Duration,
}

impl Waiting {
    fn during<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let come = wait();
        self.waited += asked.elapsed();
        come
    }

    /// From 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        self.waited.as_secs_f64() / self.began.elapsed().as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_the_first_error_ends_it() {
        for device in [Device::cpu(1).unwrap(), Device::emulated().unwrap()] {
            let mut taken = Vec::new();
            let square = |x: u32| if x == 4 { Err(Error::Unknown { what: "four".to_owned() }) } else { Ok(x * x) };
            // Tasks run on the device's own thread, of which there may be just one.
            let outcome = device.run(|| {
                ahead(&device, 0..9, square, |piece, waiting| {
                    assert!((0.0..=1.0).contains(&waiting.share()));
                    taken.push(piece);
                    Ok(())
                })
            });
            assert!(outcome.unwrap_err().to_string().contains("four"));
            assert_eq!(taken, [0, 1, 4, 9]);

            let stopped = |_: u32, _: &Waiting| Err(Error::Unknown { what: "taking".to_owned() });
            assert!(ahead(&device, 0..1000, Ok, stopped).unwrap_err().to_string().contains("taking"));
        }
    }
}
