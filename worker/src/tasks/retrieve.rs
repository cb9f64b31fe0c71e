//! retrieve: the top K of the whole catalogue for every user, and where the held-out item stands.

use std::collections::BTreeMap;

use data::dataset::training_items;
use data::examples::{Permutation, TrainingPrefixes};
use data::job::{Split, Stage};
use data::tables::{CandidateRow, TargetRankRow};
use model::retriever::LruRec;

use crate::context::{Context, Output};
use crate::population::{Population, User};
use crate::retrieval::{Scored, USERS, load, retrieve, retrieve_prefixes};
use crate::{Error, Result};

/// Makes the candidates of some shards, and the ranks of their held-out items.
pub(crate) fn run(cx: &mut Context, shards: &[u32]) -> Result<()> {
    let split = cx.split.ok_or_else(|| Error::Unknown { what: "candidates without a split".to_owned() })?;
    let population = Population::open(cx)?;
    let k = cx.job.retriever.candidates;
    let items = population.catalogue.len();
    if k > items {
        let what = format!("retriever.candidates is {k}, but the catalogue has {items} items: lower it");
        return Err(Error::Nothing { stage: Stage::Retrieve, what });
    }
    let model = load(cx, &population)?;
    let wanted = if split == Split::Train { Some(wanted_prefixes(cx, &population)?) } else { None };
    for shard in shards {
        let users = population.shard(cx, *shard as usize)?;
        let mut output = Output::default();
        match &wanted {
            Some(wanted) => train(cx, &population, &model, &users, wanted, &mut output, *shard)?,
            None => held_out(cx, &population, &model, &users, split, &mut output, *shard)?,
        }
        output.stats.rows = users.len() as u64;
        cx.commit(*shard, output)?;
    }
    Ok(())
}

fn held_out(
    cx: &mut Context,
    population: &Population,
    model: &LruRec,
    users: &[User],
    split: Split,
    output: &mut Output,
    shard: u32,
) -> Result<()> {
    let (mut candidates, mut ranks) = (Vec::new(), Vec::new());
    for batch in users.chunks(USERS) {
        cx.check()?;
        let found = retrieve(model, batch, split, cx.job.retriever.candidates as usize)?;
        for (user, best) in batch.iter().zip(&found.candidates) {
            candidates.push(row(population, user, split, None, best));
        }
        ranks.extend(batch.iter().zip(&found.ranks).map(|(user, rank)| TargetRankRow {
            user_id: user.id.clone(),
            split,
            rank: *rank,
        }));
        cx.progress(candidates.len() as u64, users.len() as u64, "users", String::new);
    }
    let of = cx.plan.shards;
    cx.part(output, &candidates, shard, of)?;
    if split.has_target() {
        cx.part(output, &ranks, shard, of)?;
    }
    Ok(())
}

/// Prefix lengths that the ranker's training will see, by user.
type Wanted = BTreeMap<String, Vec<usize>>;

fn train(
    cx: &mut Context,
    population: &Population,
    model: &LruRec,
    users: &[User],
    wanted: &Wanted,
    output: &mut Output,
    shard: u32,
) -> Result<()> {
    let mut rows = Vec::new();
    for (done, user) in users.iter().enumerate() {
        cx.check()?;
        let Some(lengths) = wanted.get(&user.id) else { continue };
        let training = training_items(&user.items);
        let found = retrieve_prefixes(model, training, lengths, cx.job.retriever.candidates as usize)?;
        for (length, best) in lengths.iter().zip(&found) {
            rows.push(row(population, user, Split::Train, Some(*length as u32), best));
        }
        cx.progress(done as u64 + 1, users.len() as u64, "users", String::new);
    }
    cx.part(output, &rows, shard, cx.plan.shards)
}

/// The examples that the ranker's steps will draw: all of them, or those of a bounded number of steps.
fn wanted_prefixes(cx: &Context, population: &Population) -> Result<Wanted> {
    let users = population.users(cx)?;
    let prefixes = TrainingPrefixes::new(users.iter().map(|u| training_items(&u.items).len()));
    let ranker = &cx.job.ranker;
    let drawn = match u64::from(ranker.max_steps) * u64::from(ranker.batch_size) {
        0 => u64::MAX,
        bounded => bounded,
    };
    let mut examples = Vec::new();
    for epoch in 0..u64::from(ranker.max_epochs) {
        let left = drawn.saturating_sub(epoch.saturating_mul(prefixes.len()));
        if left >= prefixes.len() {
            examples = (0..prefixes.len()).collect();
            break;
        }
        let order = Permutation::new(prefixes.len(), cx.job.seed, epoch);
        examples.extend((0..left).map(|place| order.at(place)));
    }
    examples.sort_unstable();
    examples.dedup();
    let mut wanted = Wanted::new();
    for example in examples {
        let prefix = prefixes.at(example);
        wanted.entry(users[prefix.user].id.clone()).or_default().push(prefix.length);
    }
    Ok(wanted)
}

fn row(population: &Population, user: &User, split: Split, position: Option<u32>, best: &[Scored]) -> CandidateRow {
    CandidateRow {
        user_id: user.id.clone(),
        split,
        position,
        items: best.iter().map(|(item, _)| population.catalogue.id(*item).to_owned()).collect(),
        scores: best.iter().map(|(_, score)| *score).collect(),
    }
}
