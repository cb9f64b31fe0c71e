//! A gang for whoever computes and talks by turns.

use std::time::{Duration, Instant};

use kernels::collective::{Bucket, Collective, Tree};
use kernels::{Result, Tensor};

use super::seat::{Seat, Watched};

/// A group whose calls are no work: as long as a member waits for others, nobody takes it for one that hangs, and what it
/// waits is not what its step takes.
pub(crate) struct Resting<'a> {
    gang: &'a mut dyn Collective,
    seat: &'a Seat,
    waited: Duration,
}

impl<'a> Resting<'a> {
    /// A group of one who is watched while it computes.
    pub(crate) fn new(gang: &'a mut dyn Collective, seat: &'a Seat) -> Self {
        Self { gang, seat, waited: Duration::ZERO }
    }

    /// How long it has waited for others.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    fn rest<T>(&mut self, call: impl FnOnce(&mut dyn Collective) -> Result<T>) -> Result<T> {
        self.seat.watch(Watched::Not);
        let began = Instant::now();
        let result = call(self.gang)?; // behind a failure there is nothing to compute
        self.waited += began.elapsed();
        self.seat.watch(Watched::Computes(Instant::now()));
        Ok(result)
    }
}

impl Collective for Resting<'_> {
    fn rank(&self) -> usize {
        self.gang.rank()
    }

    fn world(&self) -> usize {
        self.gang.world()
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> Result<Bucket> {
        self.rest(|gang| gang.all_reduce(own, like))
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.rest(|gang| gang.broadcast(root, bytes))
    }

    fn all_gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.rest(|gang| gang.all_gather(own))
    }
}
