//! Makes the next piece of work while the device does the present one.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kernels::Device;

use crate::Result;

/// Makes a piece of every item on the device's own threads, at most one piece ahead, and has them taken in order. `take` is told
/// which share of the time until now was spent waiting for pieces: near 0, the device is never idle for want of them.
///
/// # Errors
/// The first error of `make` or `take`.
pub(crate) fn ahead<T: Send, P: Send>(
    device: &Device,
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    make: impl Fn(T) -> Result<P> + Send + Sync,
    mut take: impl FnMut(P, f64) -> Result<()>,
) -> Result<()> {
    let items = items.into_iter();
    let (give, pieces) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for item in items {
                let piece = device.run(|| make(item));
                let last = piece.is_err();
                // Nobody takes any more once something has failed.
                if give.send(piece).is_err() || last {
                    return;
                }
            }
        });
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        loop {
            let asked = Instant::now();
            let Ok(piece) = pieces.recv() else { return Ok(()) };
            waited += asked.elapsed();
            take(piece?, waited.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9))?;
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn pieces_come_in_order_and_the_first_error_ends_it() {
        let device = Device::cpu(1).unwrap();
        let mut taken = Vec::new();
        let square = |x: u32| if x == 4 { Err(Error::Unknown { what: "four".to_owned() }) } else { Ok(x * x) };
        let outcome = ahead(&device, 0..9, square, |piece, share| {
            assert!((0.0..=1.0).contains(&share));
            taken.push(piece);
            Ok(())
        });
        assert!(outcome.unwrap_err().to_string().contains("four"));
        assert_eq!(taken, [0, 1, 4, 9]);

        let stopped = |_: u32, _: f64| Err(Error::Unknown { what: "taking".to_owned() });
        assert!(ahead(&device, 0..1000, Ok, stopped).unwrap_err().to_string().contains("taking"));
    }
}
