//! evaluate: how good the retriever and the ranker are on held-out items.

use std::collections::BTreeMap;

use data::artifact::{ArtifactId, Digest, role};
use data::dataset::Holdout;
use data::job::{Split, Stage};
use data::metrics::{Rank, measure, rank_of, retrieved};
use data::tables::{CandidateRow, MetricRow, RankingRow, TargetRankRow};

use crate::context::{Context, Output};
use crate::population::{Population, read_shard};
use crate::{Error, Result};

/// Lengths of the lists that count, for the retriever and for what orders its candidates.
const RETRIEVER_KS: [u32; 5] = [1, 5, 10, 20, 50];
const RANKER_KS: [u32; 3] = [1, 5, 10];

/// Makes the metrics table.
pub(crate) fn run(cx: &mut Context) -> Result<()> {
    let mut rows = Vec::new();
    let mut users = 0;
    for split in [Split::Validation, Split::Test] {
        if let Some(retrieve) = input(cx, Stage::Retrieve, split) {
            let rank = input(cx, Stage::Rank, split);
            users += of_split(cx, split, &retrieve, rank.as_ref(), &mut rows)?;
        }
    }
    if users == 0 {
        let what = "there is no user with a held-out item; name validation or test in `splits`".to_owned();
        return Err(Error::Nothing { stage: Stage::Evaluate, what });
    }
    let mut output = Output::default();
    cx.part(&mut output, &rows, 0, 1)?;
    output.stats.rows = users;
    cx.progress(users, users, "users", String::new);
    cx.commit(0, output)
}

fn input(cx: &Context, stage: Stage, split: Split) -> Option<ArtifactId> {
    let digest: Digest = cx.spec.inputs.get(&role(stage, Some(split))).cloned()?;
    Some(ArtifactId { stage, digest })
}

/// The ranks of one split under each system, in the order of users.
#[derive(Default)]
struct Ranks {
    catalogue: Vec<Rank>,
    order: Vec<Rank>,
    ranker: Vec<Rank>,
}

fn of_split(
    cx: &mut Context,
    split: Split,
    retrieve: &ArtifactId,
    rank: Option<&ArtifactId>,
    rows: &mut Vec<MetricRow>,
) -> Result<u64> {
    let population = Population::open(cx)?;
    let mut ranks = Ranks::default();
    for shard in 0..population.shards() {
        cx.check()?;
        let targets = targets(cx, &population, shard, split)?;
        ranks.catalogue.extend(catalogue_ranks(cx, retrieve, shard)?);
        let candidates: Vec<CandidateRow> = read_shard(cx, retrieve, shard)?;
        ranks.order.extend(candidates.iter().map(|c| listed(&targets, &c.user_id, &c.items)));
        if let Some(rank) = rank {
            let rankings: Vec<RankingRow> = read_shard(cx, rank, shard)?;
            ranks.ranker.extend(rankings.iter().map(|r| listed(&targets, &r.user_id, &r.items)));
        }
        cx.progress(ranks.order.len() as u64, 0, "users", || split.to_string());
    }
    let seed = cx.job.seed;
    let mut add = |ranks: &[Rank], ks: &[u32], population: &str, system: &str| {
        rows.extend(measure(ranks, ks, seed).iter().map(|figure| figure.row(split, population, system)));
    };
    add(&ranks.catalogue, &RETRIEVER_KS, "overall", "retriever");
    add(&ranks.order, &RANKER_KS, "overall", "retriever_order");
    add(&retrieved(&ranks.order), &RANKER_KS, "subset", "retriever_order");
    if rank.is_some() {
        add(&ranks.ranker, &RANKER_KS, "overall", "ranker");
        add(&retrieved(&ranks.ranker), &RANKER_KS, "subset", "ranker");
    }
    Ok(ranks.order.len() as u64)
}

/// The held-out item of every user of a shard.
fn targets(cx: &Context, population: &Population, shard: usize, split: Split) -> Result<BTreeMap<String, String>> {
    let users = population.shard(cx, shard)?;
    let held = |user: &crate::population::User| {
        let target = Holdout::of(&user.items, split).target.map(|item| population.catalogue.id(*item).to_owned());
        target.map(|target| (user.id.clone(), target))
    };
    Ok(users.iter().filter_map(held).collect())
}

fn catalogue_ranks(cx: &Context, retrieve: &ArtifactId, shard: usize) -> Result<Vec<Rank>> {
    let rows: Vec<TargetRankRow> = read_shard(cx, retrieve, shard)?;
    Ok(rows.iter().map(|row| Some(row.rank)).collect())
}

fn listed(targets: &BTreeMap<String, String>, user: &str, items: &[String]) -> Rank {
    rank_of(items, targets.get(user)?)
}
