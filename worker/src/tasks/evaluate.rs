//! evaluate: how good the retriever and the ranker are on held-out items.

use data::artifact::{Digest, role};
use data::dataset::Holdout;
use data::job::{Split, Stage};
use data::metrics::{Rank, measure, rank_of, retrieved};
use data::tables::{CandidateRow, MetricRow, RankingRow, TargetRankRow};

use crate::context::{Context, Output};
use crate::population::{Population, open_table, read_shard};
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

fn input(cx: &Context, stage: Stage, split: Split) -> Option<Digest> {
    cx.spec.inputs.get(&role(stage, Some(split))).cloned()
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
    retrieve: &Digest,
    rank: Option<&Digest>,
    rows: &mut Vec<MetricRow>,
) -> Result<u64> {
    let population = Population::open(cx)?;
    let (catalogue_ranks, orders) =
        (open_table(cx, Stage::Retrieve, retrieve)?, open_table(cx, Stage::Retrieve, retrieve)?);
    let rankings = rank.map(|rank| open_table(cx, Stage::Rank, rank)).transpose()?;
    let mut ranks = Ranks::default();
    for shard in 0..population.shards() {
        cx.check()?;
        let users = population.shard(cx, shard)?;
        let targets: Vec<Option<&str>> = users
            .iter()
            .map(|user| Holdout::of(&user.items, split).target.map(|item| population.catalogue.id(*item)))
            .collect();
        let catalogue = read_shard(cx, &catalogue_ranks, shard, &users, |r: &TargetRankRow| &r.user_id)?;
        let order = read_shard(cx, &orders, shard, &users, |r: &CandidateRow| &r.user_id)?;
        let read = |rankings| read_shard(cx, rankings, shard, &users, |r: &RankingRow| &r.user_id);
        let ranked = rankings.as_ref().map(read).transpose()?;
        if !users.is_empty() && (order.is_empty() || ranked.as_ref().is_some_and(Vec::is_empty)) {
            continue; // users who were put aside count for no system
        }
        ranks.catalogue.extend(catalogue.iter().map(|row| Some(row.rank)));
        ranks.order.extend(targets.iter().zip(&order).map(|(target, row)| rank_of(&row.items, (*target)?)));
        if let Some(ranked) = ranked {
            ranks.ranker.extend(targets.iter().zip(&ranked).map(|(target, row)| rank_of(&row.items, (*target)?)));
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
