//! How members of a gang come to the same state before they train together.

use kernels::collective::Collective;

use super::Training;
use crate::checkpoint::{self, Saver};
use crate::context::Context;
use crate::gang::{Healing, Standing, decode, encode};
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
    pub(super) fn heal(&mut self, cx: &Context, gang: &mut dyn Collective) -> Result<()> {
        if gang.world() == 1 {
            return Ok(());
        }
        let healing = self.compare(cx, gang)?;
        let (root, needed) = match healing {
            Healing::Nothing => return Ok(()),
            Healing::PutOut(why) => return Err(Error::PutOut(why)),
            Healing::From { rank, needed } => (rank, needed),
        };
        let own = gang.rank() == root;
        let mut bytes = if own { self.computing(cx, |this| this.snapshot())?.to_bytes() } else { Vec::new() };
        gang.broadcast(root, &mut bytes)?;
        if needed {
            let (snapshot, behind) = (Snapshot::from_bytes(bytes)?, self.course.step);
            self.computing(cx, |this| this.trainee.restore(&snapshot))?;
            self.course = snapshot.course;
            tracing::info!(from = root, behind, step = self.course.step, "brought up by another member");
        }
        match self.compare(cx, gang)? {
            Healing::Nothing => Ok(()),
            Healing::PutOut(why) => Err(Error::PutOut(why)),
            Healing::From { .. } => Err(kernels::Error::Gang("members are still at different steps".to_owned()).into()),
        }
    }

    fn compare(&mut self, cx: &Context, gang: &mut dyn Collective) -> Result<Healing> {
        let standing = self.computing(cx, |this| {
            let loaded = match &this.loaded {
                Some(loaded) => loaded.clone(),
                None => this.loaded.insert(this.trainee.loaded()?).clone(),
            };
            cx.seat.beat();
            let at = (this.course.step, this.course.validated);
            Ok(Standing { at, state: this.snapshot()?.digest(), loaded })
        })?;
        let all = decode(&gang.all_gather(encode(&standing))?)?;
        Ok(Standing::healing(&all, gang.rank()))
    }
}
