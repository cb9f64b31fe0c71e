//! retrieve: the top K of the whole catalogue for every user, and where the held-out item stands.

use std::collections::BTreeMap;

use data::artifact::MAX_PART_BYTES;
use data::dataset::training_items;
use data::examples::{Permutation, TrainingPrefixes};
use data::job::Split;
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
    let (candidates, items) = (cx.job.retriever.candidates, population.catalogue.len());
    if candidates > items {
        return Err(Error::TooManyCandidates { candidates, items: items as usize });
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

/// What the ranker's training will see.
struct Wanted {
    /// Prefix lengths by user.
    lengths: BTreeMap<String, Vec<usize>>,
    /// Parts that every shard is written as. One user can have hundreds of prefixes, so a shard of these rows may be too
    /// large for one part.
    pieces: u32,
}

fn train(
    cx: &mut Context,
    population: &Population,
    model: &LruRec,
    users: &[User],
    wanted: &Wanted,
    output: &mut Output,
    shard: u32,
) -> Result<()> {
    let all: usize = users.iter().filter_map(|u| wanted.lengths.get(&u.id)).map(Vec::len).sum();
    let (first, of) = (shard * wanted.pieces, cx.plan.shards * wanted.pieces);
    let size = all.div_ceil(wanted.pieces as usize);
    let (mut rows, mut written) = (Vec::new(), 0);
    for (done, user) in users.iter().enumerate() {
        cx.check()?;
        let Some(lengths) = wanted.lengths.get(&user.id) else { continue };
        let training = training_items(&user.items);
        let found = retrieve_prefixes(model, training, lengths, cx.job.retriever.candidates as usize)?;
        for (length, best) in lengths.iter().zip(&found) {
            rows.push(row(population, user, Split::Train, Some(*length as u32), best));
        }
        while rows.len() > size && written + 1 < wanted.pieces {
            let rest = rows.split_off(size);
            cx.write_part(output, &rows, first + written, of)?;
            (rows, written) = (rest, written + 1);
        }
        cx.progress(done as u64 + 1, users.len() as u64, "users", String::new);
    }
    // Every shard has the same number of parts, so that the names of a table's parts say whether one is missing.
    for piece in written..wanted.pieces {
        cx.write_part(output, &rows, first + piece, of)?;
        rows.clear();
    }
    Ok(())
}

/// How many parts hold the rows of the largest shard, however badly they compress: the same for all who compute it.
fn pieces(cx: &Context, population: &Population, lengths: &BTreeMap<String, Vec<usize>>) -> Result<u32> {
    let longest = population.catalogue.items().iter().map(|i| i.item_id.len()).max().unwrap_or(0);
    let bytes_of_row = |user: &User| 64 + user.id.len() + cx.job.retriever.candidates as usize * (longest + 8);
    let mut pieces = 1;
    for shard in 0..population.shards() {
        let users = population.shard(cx, shard)?;
        let bytes: usize = users.iter().filter_map(|u| Some(lengths.get(&u.id)?.len() * bytes_of_row(u))).sum();
        pieces = pieces.max(bytes.div_ceil(MAX_PART_BYTES as usize / 2));
    }
    Ok(pieces as u32)
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
    let mut lengths = BTreeMap::<String, Vec<usize>>::new();
    for example in examples {
        let prefix = prefixes.at(example);
        lengths.entry(users[prefix.user].id.clone()).or_default().push(prefix.length);
    }
    Ok(Wanted { pieces: pieces(cx, population, &lengths)?, lengths })
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
