//! The retriever at work: histories in, candidates and ranks out.

mod model_files;
mod unknown;

use data::dataset::{Holdout, KnownItems};
use data::job::Split;
use model::retriever::{LruRec, PackedBatch};

use crate::Result;
use crate::population::User;
pub(crate) use model_files::{ITEM_IDS_FILE, check_candidates, item_ids, load};
pub(crate) use unknown::Unknown;

/// Users scored together: fixed, so that a score never depends on who else is scored.
pub(crate) const USERS: usize = 256;

/// A retriever for the items that it and the catalogue have, and their numbers.
pub(crate) struct Retriever {
    pub(crate) model: LruRec,
    pub(crate) known: KnownItems,
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

impl Retrieved {
    fn nobody(users: usize) -> Self {
        Self { candidates: vec![Vec::new(); users], ranks: Vec::new() }
    }
}

/// Retrieves for the users of one batch under a split.
///
/// Items that the model does not know are left out of its input. Somebody with no known item gets no candidates. A held-out
/// item that has no score is behind all others.
pub(crate) fn retrieve(
    model: &LruRec,
    known: &KnownItems,
    users: &[&User],
    split: Split,
    k: usize,
) -> Result<Retrieved> {
    let views: Vec<Holdout<'_, u32>> = users.iter().map(|u| Holdout::of(&u.items, split)).collect();
    let inputs: Vec<Vec<u32>> = views.iter().map(|v| in_model(known, v.history)).collect();
    let scored: Vec<usize> = (0..users.len()).filter(|i| !inputs[*i].is_empty()).collect();
    let mut retrieved = Retrieved::nobody(users.len());
    if split.has_target() {
        let catalogue = known.catalogue_len();
        retrieved.ranks = views.iter().map(|v| (catalogue - sorted(v.history).len()) as u32).collect();
    }
    if scored.is_empty() {
        return Ok(retrieved);
    }
    let seen: Vec<Vec<u32>> = scored.iter().map(|i| sorted(&inputs[*i])).collect();
    let histories = scored.iter().map(|i| inputs[*i].as_slice());
    let hidden = model.encode(&PackedBatch::score(histories, model.config().max_length))?;
    let exclude: Vec<&[u32]> = seen.iter().map(Vec::as_slice).collect();
    for (user, best) in scored.iter().zip(model.top_k(&hidden, &exclude, k)?) {
        retrieved.candidates[*user] = in_catalogue(known, &best);
    }
    if split.has_target() {
        let targets: Vec<Option<u32>> = scored.iter().map(|i| known.number(*views[*i].target?)).collect();
        // A model has an item 1 at least; its rank stands for nobody.
        let asked: Vec<u32> = targets.iter().map(|t| t.unwrap_or(1)).collect();
        let ranks = model.ranks(&hidden, &exclude, &asked)?;
        for ((user, target), rank) in scored.iter().zip(targets).zip(ranks) {
            retrieved.ranks[*user] = if target.is_some() { rank } else { retrieved.ranks[*user] };
        }
    }
    Ok(retrieved)
}

/// Retrieves for some prefixes of one user's training sequence, `lengths` ascending; the last item of a prefix is its
/// answer and not part of the history.
pub(crate) fn retrieve_prefixes(
    retriever: &Retriever,
    training: &[u32],
    lengths: &[usize],
    k: usize,
) -> Result<Vec<Vec<Scored>>> {
    let Retriever { model, known } = retriever;
    let inputs: Vec<Vec<u32>> = lengths.iter().map(|n| in_model(known, &training[..n - 1])).collect();
    // Prefixes of which the model knows nothing come first and get nothing.
    let unknown = inputs.iter().take_while(|input| input.is_empty()).count();
    let mut candidates = vec![Vec::new(); unknown];
    let inputs = &inputs[unknown..];
    let seen: Vec<Vec<u32>> = inputs.iter().map(|input| sorted(input)).collect();
    let exclude: Vec<&[u32]> = seen.iter().map(Vec::as_slice).collect();
    let longest = model.config().max_length;
    // One pass over a short sequence gives the states of all of its prefixes; beyond the longest history each prefix
    // begins at another item and needs a pass of its own.
    let short = inputs.iter().take_while(|input| input.len() <= longest).count();
    if let Some(last) = short.checked_sub(1) {
        let states = model.encode_all_positions(&PackedBatch::score([inputs[last].as_slice()], longest))?;
        let rows: Vec<u32> = inputs[..short].iter().map(|input| input.len() as u32 - 1).collect();
        let hidden = kernels::embedding::forward(&states, &rows)?;
        candidates.extend(model.top_k(&hidden, &exclude[..short], k)?.iter().map(|best| in_catalogue(known, best)));
    }
    for (inputs, exclude) in inputs[short..].chunks(USERS).zip(exclude[short..].chunks(USERS)) {
        let hidden = model.encode(&PackedBatch::score(inputs.iter().map(Vec::as_slice), longest))?;
        candidates.extend(model.top_k(&hidden, exclude, k)?.iter().map(|best| in_catalogue(known, best)));
    }
    Ok(candidates)
}

/// The items that the model knows, as it numbers them.
fn in_model(known: &KnownItems, items: &[u32]) -> Vec<u32> {
    items.iter().filter_map(|item| known.number(*item)).collect()
}

/// Scored items as the catalogue numbers them.
fn in_catalogue(known: &KnownItems, best: &[kernels::top_k::Scored]) -> Vec<Scored> {
    best.iter().map(|s| (known.item(s.id), s.score)).collect()
}

fn sorted(items: &[u32]) -> Vec<u32> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}
