//! The retriever at work: histories in, candidates and ranks out.

use data::artifact::model_prefix;
use data::dataset::Holdout;
use data::job::{Split, Stage};
use model::retriever::{LruRec, PackedBatch};

use crate::context::Context;
use crate::population::{Population, User};
use crate::{Error, Result};

/// Users scored together: fixed, so that a score never depends on who else is scored.
pub(crate) const USERS: usize = 256;

/// Refuses to propose more items than there are.
pub(crate) fn check_candidates(cx: &Context, population: &Population) -> Result<()> {
    let (candidates, items) = (cx.job.retriever.candidates, population.catalogue.len());
    if candidates > items { Err(Error::TooManyCandidates { candidates, items }) } else { Ok(()) }
}

/// Loads the retriever that a task's artifact was planned with.
pub(crate) fn load(cx: &Context, population: &Population) -> Result<LruRec> {
    let prefix = model_prefix(Stage::TrainRetriever, &cx.input(Stage::TrainRetriever, None)?);
    let weights = cx.wait(cx.store.get(&format!("{prefix}/model.safetensors")))?;
    let config = cx.wait(cx.store.get(&format!("{prefix}/config.json")))?;
    Ok(LruRec::load(&weights, &config, population.catalogue.len() as usize)?)
}

/// Item and score.
pub(crate) type Scored = (u32, f32);

/// The candidates of some histories, and the rank of each target among the items that are not in the history.
pub(crate) struct Retrieved {
    /// Best first, per history.
    pub(crate) candidates: Vec<Vec<Scored>>,
    /// One per history where the split holds an item out.
    pub(crate) ranks: Vec<u32>,
}

/// Retrieves for the users of one batch under a split.
pub(crate) fn retrieve(model: &LruRec, users: &[User], split: Split, k: usize) -> Result<Retrieved> {
    let views: Vec<Holdout<'_, u32>> = users.iter().map(|u| Holdout::of(&u.items, split)).collect();
    let histories: Vec<&[u32]> = views.iter().map(|v| v.history).collect();
    let seen: Vec<Vec<u32>> = histories.iter().map(|h| sorted(h)).collect();
    let exclude: Vec<&[u32]> = seen.iter().map(Vec::as_slice).collect();
    let hidden = model.encode(&PackedBatch::score(histories, model.config().max_length))?;
    let top = model.top_k(&hidden, &exclude, k)?;
    let targets: Vec<u32> = views.iter().filter_map(|v| v.target.copied()).collect();
    let ranks = if split.has_target() { model.ranks(&hidden, &exclude, &targets)? } else { Vec::new() };
    let candidates = top.into_iter().map(|row| row.into_iter().map(|s| (s.id, s.score)).collect()).collect();
    Ok(Retrieved { candidates, ranks })
}

/// Retrieves for some prefixes of one user's training sequence, `lengths` ascending; the last item of a prefix is its
/// answer and not part of the history.
pub(crate) fn retrieve_prefixes(
    model: &LruRec,
    training: &[u32],
    lengths: &[usize],
    k: usize,
) -> Result<Vec<Vec<Scored>>> {
    let histories: Vec<&[u32]> = lengths.iter().map(|n| &training[..n - 1]).collect();
    let seen: Vec<Vec<u32>> = histories.iter().map(|h| sorted(h)).collect();
    let longest = model.config().max_length;
    let mut candidates = Vec::with_capacity(lengths.len());
    // One pass over a short sequence gives the states of all of its prefixes; beyond the longest history each prefix
    // begins at another item and needs a pass of its own.
    let short = histories.iter().take_while(|h| h.len() <= longest).count();
    if let Some(last) = short.checked_sub(1) {
        let states = model.encode_all_positions(&PackedBatch::score([histories[last]], longest))?;
        let rows: Vec<u32> = histories[..short].iter().map(|h| h.len() as u32 - 1).collect();
        let hidden = kernels::embedding::forward(&states, &rows)?;
        let exclude: Vec<&[u32]> = seen[..short].iter().map(Vec::as_slice).collect();
        candidates.extend(model.top_k(&hidden, &exclude, k)?);
    }
    for (histories, seen) in histories[short..].chunks(USERS).zip(seen[short..].chunks(USERS)) {
        let hidden = model.encode(&PackedBatch::score(histories.iter().copied(), longest))?;
        let exclude: Vec<&[u32]> = seen.iter().map(Vec::as_slice).collect();
        candidates.extend(model.top_k(&hidden, &exclude, k)?);
    }
    Ok(candidates.into_iter().map(|row| row.into_iter().map(|s| (s.id, s.score)).collect()).collect())
}

fn sorted(items: &[u32]) -> Vec<u32> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}
