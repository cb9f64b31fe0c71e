//! Whether NCCL gives the sums that it should.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{Aborter, Nccl, Way};
use crate::collective::{Bucket, Collective, Tree, local, slices_of};
use crate::{Device, Error, Result, Tensor};

/// Elements of the buckets: several pieces of different lengths.
const ELEMENTS: u16 = 10_007;
const PIECE: usize = 4096;
const SLICES: usize = 3;

/// How long NCCL may take to meet itself: a network that lets nothing through must not keep a card from its work.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sums over a group of one, where the device is a card and there is NCCL: what it is to do between cards it does within one then.
/// Where NCCL does not open, that is no fault of the card, which trains alone or over other streams.
///
/// # Errors
/// [`Error::Gang`] if NCCL gives wrong sums, or fails in the middle of one.
pub(crate) fn check(device: &Device) -> Result<()> {
    if !Nccl::possible(device) {
        return Ok(());
    }
    let aborter = Aborter::new();
    let (done, waits) = channel::<()>();
    let late = aborter.clone();
    std::thread::spawn(move || {
        if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = late.abort(); // whoever waits hears of it
        }
    });
    let proven = match Nccl::open_with(Box::new(local::alone()), device, &aborter) {
        Ok(mut alone) => alone.prove(),
        Err(_) => Ok(()), // whoever opens it for a gang hears why
    };
    drop(done);
    proven
}

/// The values of a slice, small whole numbers: their sums are exact in any order.
fn value(slice: usize, element: u16) -> f32 {
    f32::from(element % 97) * (slice + 1) as f32
}

impl Nccl {
    /// Sums in either way what all members know the sum of.
    pub(super) fn prove(&mut self) -> Result<()> {
        let proven = self.prove_ways();
        self.or_abort(proven)
    }

    fn prove_ways(&mut self) -> Result<()> {
        let piece = std::mem::replace(&mut self.piece, PIECE);
        for way in [Way::Chain, Way::Gather] {
            let mut own = Tree::new(SLICES);
            for slice in slices_of(self.rank(), self.world(), SLICES) {
                own.push(slice, Bucket::new(vec![self.tensor(|element| value(slice, element))?])?)?;
            }
            let like = self.tensor(|_| 0.0)?;
            let total = self.reduce(own, &[&like], way)?.to_flat()?;
            let wanted = |element| (0..SLICES).map(|slice| value(slice, element)).sum::<f32>();
            if let Some((element, found)) = (0..ELEMENTS).zip(total).find(|(element, found)| *found != wanted(*element))
            {
                return Err(Error::Gang(format!(
                    "NCCL gives wrong sums on {}: element {element} is {found} in the place of {}",
                    self.on.name(),
                    wanted(element)
                )));
            }
        }
        self.piece = piece;
        Ok(())
    }

    fn tensor(&self, value: impl Fn(u16) -> f32) -> Result<Tensor> {
        Tensor::from_f32(&[usize::from(ELEMENTS)], (0..ELEMENTS).map(value).collect())?.to_device(&self.on)
    }
}
