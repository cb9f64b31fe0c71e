//! How members of a gang come to the same state before they train together.

use data::artifact::Digest;
use kernels::collective::Collective;
use proto::GenerationId;

use super::Training;
use crate::checkpoint::{self, Saver};
use crate::context::Context;
use crate::gang::{Healing, Resting, Standing, decode, encode};
use crate::snapshot::Snapshot;
use crate::{Error, Result};

impl Training<'_> {
    /// Those who trained may have left a later checkpoint while this member waited for its first generation.
    pub(super) fn look_again(&mut self, cx: &Context) -> Result<()> {
        if let Some(found) = checkpoint::newest(cx, self.course.step + 1)? {
            self.computing(cx, |this| this.trainee.restore(&found))?;
            self.course = found.course;
            self.saver = Saver::new(self.course.step);
        }
        Ok(())
    }

    /// Brings those up who are behind, and puts those out who differ.
    pub(super) fn heal(&mut self, cx: &Context, number: GenerationId, gang: &mut dyn Collective) -> Result<()> {
        let own = gang.rank();
        let holders = self.holders(gang)?;
        let goes_on = || {
            cx.seat.beat();
            cx.seat.aborted(number).is_none()
        };
        self.computing(cx, |this| this.trainee.settle(&mut Resting::new(gang, &cx.seat), &holders, &goes_on))?;
        if gang.world() == 1 {
            return Ok(());
        }
        let healing = self.compare(cx, gang, holders.contains(&own))?;
        let (root, needed) = match healing {
            Healing::Nothing => return Ok(()),
            Healing::PutOut(why) => return Err(Error::PutOut(why)),
            Healing::From { rank, needed } => (rank, needed),
        };
        let mut bytes = if own == root { self.computing(cx, |this| this.snapshot())?.to_bytes() } else { Vec::new() };
        gang.broadcast(root, &mut bytes)?;
        if needed {
            let (snapshot, behind) = (Snapshot::from_bytes(bytes)?, self.course.step);
            self.computing(cx, |this| this.trainee.restore(&snapshot))?;
            self.course = snapshot.course;
            tracing::info!(from = root, behind, step = self.course.step, "brought up by another member");
        }
        match self.compare(cx, gang, true)? {
            Healing::Nothing => Ok(()),
            Healing::PutOut(why) => Err(Error::PutOut(why)),
            Healing::From { .. } => Err(kernels::Error::Gang("members are still at different steps".to_owned()).into()),
        }
    }

    /// The ranks that have done the most.
    fn holders(&self, gang: &mut dyn Collective) -> Result<Vec<usize>> {
        let all: Vec<(u64, u64)> = decode(&gang.all_gather(encode(&self.at()))?)?;
        let top = all.iter().max();
        Ok((0..all.len()).filter(|rank| Some(&all[*rank]) == top).collect())
    }

    /// Steps done, and the last of them that was validated.
    fn at(&self) -> (u64, u64) {
        (self.course.step, self.course.validated)
    }

    /// What is to be done. The state of one who is behind does not matter.
    fn compare(&mut self, cx: &Context, gang: &mut dyn Collective, holds: bool) -> Result<Healing> {
        let standing = self.computing(cx, |this| {
            let loaded = match &this.loaded {
                Some(loaded) => loaded.clone(),
                None => this.loaded.insert(this.trainee.loaded()?).clone(),
            };
            cx.seat.beat();
            let state = if holds { this.snapshot()?.digest() } else { Digest::of_bytes(b"behind") };
            Ok(Standing { at: this.at(), state, loaded })
        })?;
        let all = decode(&gang.all_gather(encode(&standing))?)?;
        Ok(Standing::healing(&all, gang.rank()))
    }
}
