//! retrieve: the top K of the whole catalogue for every user, and where the held-out item stands.

mod prefixes;

use data::job::Split;
use data::tables::{CandidateRow, TargetRankRow};
use kernels::Device;

use crate::context::{Context, Output};
use crate::kept::Kept;
use crate::population::{Population, User};
use crate::retrieval::{Retriever, Scored, USERS, Unknown, check_candidates, load, retrieve};
use crate::since::{EarlierCandidates, Fates, Since, UserRows};
use crate::{Error, Result};
use prefixes::Wanted;

/// What all shards of an artifact share.
struct Retrieval {
    population: Population,
    retriever: Retriever,
    split: Split,
}

/// The same, and what the shards of its split draw from.
struct Opened {
    retrieval: Retrieval,
    earlier: Since<EarlierCandidates>,
    wanted: Option<Wanted>,
}

/// Makes the candidates of some shards, and the ranks of their held-out items.
pub(crate) fn run(cx: &mut Context, shards: &[u32], device: &Device, kept: &mut Kept) -> Result<()> {
    let Opened { retrieval, earlier, wanted } = kept.or_open(cx, |cx| Opened::open(cx, device))?;
    for shard in shards {
        if cx.is_done(*shard)? {
            continue;
        }
        let users = retrieval.population.shard(cx, *shard as usize)?;
        let mut output = Output::default();
        match wanted {
            Some(wanted) => retrieval.prefixes(cx, &users, wanted, &mut output, *shard)?,
            None => retrieval.held_out(cx, &users, earlier, &mut output, *shard)?,
        }
        if Unknown::possible(cx) {
            let unknown = Unknown::count(&users, &retrieval.retriever.known);
            cx.part(&mut output, &unknown.rows(&retrieval.population.catalogue), *shard, cx.plan.shards)?;
            unknown.describe(&mut output.stats);
        }
        output.stats.rows = users.len() as u64;
        cx.commit(*shard, output)?;
    }
    Ok(())
}

impl Opened {
    fn open(cx: &Context, device: &Device) -> Result<Self> {
        let split = cx.split.ok_or_else(|| Error::Unknown { what: "candidates without a split".to_owned() })?;
        let population = Population::open(cx)?;
        check_candidates(cx, &population)?;
        let Retriever { model, known } = load(cx, &population)?;
        let retrieval = Retrieval { retriever: Retriever { model: model.on(device)?, known }, population, split };
        let earlier = EarlierCandidates::open(cx, &retrieval.population, &retrieval.retriever.known, split)?;
        let wanted = if split == Split::Train { Some(Wanted::of(cx, &retrieval.population)?) } else { None };
        Ok(Self { retrieval, earlier, wanted })
    }
}

impl Retrieval {
    fn held_out(
        &self,
        cx: &mut Context,
        users: &[User],
        earlier: &mut Since<EarlierCandidates>,
        output: &mut Output,
        shard: u32,
    ) -> Result<()> {
        let catalogue = &self.population.catalogue;
        let fates = earlier.fates(users.len(), |rows| rows.fates(cx, catalogue, users, shard))?;
        let computed = self.compute(cx, fates.rescored(users.iter()), &fates)?;
        fates.describe(&mut output.stats);
        let (candidates, ranks): (Vec<_>, Vec<_>) = fates.merge(computed).into_iter().unzip();
        let of = cx.plan.shards;
        cx.part(output, &candidates, shard, of)?;
        if self.split.has_target() {
            let ranks: Vec<TargetRankRow> = ranks.into_iter().flatten().collect();
            cx.part(output, &ranks, shard, of)?;
        }
        Ok(())
    }

    /// The rows of some users of a shard.
    fn compute(&self, cx: &mut Context, users: Vec<&User>, fates: &Fates<UserRows>) -> Result<Vec<UserRows>> {
        let (copied, k) = (fates.copied() as u64, cx.job.retriever.candidates as usize);
        let total = copied + users.len() as u64;
        let mut rows = Vec::with_capacity(users.len());
        cx.progress(copied, total, "users", || fates.note());
        for batch in users.chunks(USERS) {
            cx.check()?;
            let found = retrieve(&self.retriever.model, &self.retriever.known, batch, self.split, k)?;
            let mut ranks = found.ranks.into_iter();
            for (user, best) in batch.iter().zip(&found.candidates) {
                let (user_id, split) = (user.id.clone(), self.split);
                let rank = ranks.next().map(|rank| TargetRankRow { user_id, split, rank });
                rows.push((self.row(user, None, best), rank));
            }
            cx.progress(copied + rows.len() as u64, total, "users", || fates.note());
        }
        Ok(rows)
    }

    fn row(&self, user: &User, position: Option<u32>, best: &[Scored]) -> CandidateRow {
        CandidateRow {
            user_id: user.id.clone(),
            split: self.split,
            position,
            items: best.iter().map(|(item, _)| self.population.catalogue.id(*item).to_owned()).collect(),
            scores: best.iter().map(|(_, score)| *score).collect(),
        }
    }
}
