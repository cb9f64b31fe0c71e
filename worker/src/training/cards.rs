//! Gangs whose members all have cards: what they sum goes from card to card, as long as NCCL does not fail them.

use std::time::Duration;

use kernels::collective::nccl::{Aborter, Nccl};
use kernels::collective::{Bucket, Collective, Tree};
use kernels::{Result as KernelResult, Tensor};

use super::Training;
use crate::Result;
use crate::context::Context;
use crate::gang::{Closer, within};

/// How long NCCL may take to connect all cards, or to sum, once all are there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of what may succeed later.
const EXIT_MAY_PASS: i32 = 75;

impl Training<'_> {
    /// Where every member has a card and NCCL, buckets go from card to card. If that fails once, later generations stay with
    /// their streams.
    pub(super) fn widen(&mut self, cx: &Context, mut ring: Box<dyn Collective>) -> Result<Box<dyn Collective>> {
        if ring.world() == 1 {
            return Ok(ring);
        }
        let can = !self.narrow && Nccl::possible(self.device);
        let all = ring.all_gather(vec![u8::from(can)])?;
        if all.iter().any(|can| *can != [1]) {
            return Ok(ring);
        }
        let aborter = Aborter::new();
        cx.seat.guard(ending(aborter.clone()));
        let connected = within(PATIENCE, ending(aborter.clone()));
        let opened = Nccl::open_with(ring, self.device, &aborter);
        drop(connected);
        self.narrow = opened.is_err();
        let gang =
            opened.inspect_err(|e| tracing::warn!(error = %e, "no NCCL: the gang sums over TCP from here on"))?;
        gang.remarks().iter().for_each(|remark| tracing::warn!("{remark}"));
        Ok(Box::new(Cards { gang, aborter }))
    }
}

/// Cards whose sums do not wait for ever: the library knows no limit, and one that fails leaves the others in it.
struct Cards {
    gang: Nccl,
    aborter: Aborter,
}

impl Collective for Cards {
    fn rank(&self) -> usize {
        self.gang.rank()
    }

    fn world(&self) -> usize {
        self.gang.world()
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> KernelResult<Bucket> {
        self.gang.barrier()?; // who computes longer than others is not what takes too long
        let _summed = within(PATIENCE, ending(self.aborter.clone()));
        self.gang.all_reduce(own, like)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> KernelResult<()> {
        self.gang.broadcast(root, bytes)
    }

    fn all_gather(&mut self, own: Vec<u8>) -> KernelResult<Vec<Vec<u8>>> {
        self.gang.all_gather(own)
    }
}

/// Ends what waits within NCCL, beside the caller. A library that does not let go keeps the card: only the end of this process
/// frees it, and whoever looks after that starts it again.
fn ending(aborter: Aborter) -> Closer {
    Box::new(move || {
        let aborter = aborter.clone();
        std::thread::spawn(move || {
            if let Err(e) = aborter.abort() {
                tracing::error!(error = %e, "this worker ends, start it again");
                std::process::exit(EXIT_MAY_PASS);
            }
        });
    })
}
