//! Which candidates of before still stand.

use std::collections::HashSet;

use data::artifact::{role, table_prefix};
use data::dataset::{Catalogue, KnownItems};
use data::job::{Split, Stage};
use data::tables::{CandidateRow, ItemRow, Reader, Table, TargetRankRow, read_all};

use super::fates::{Fate, Reason, Since};
use super::{Before, ById, EarlierUsers, NEW_USER, OTHER_VERSION, part_of};
use crate::Result;
use crate::context::Context;
use crate::population::{Population, User};

/// A user's candidates, and the rank of the held-out item where there is one.
pub(crate) type UserRows = (CandidateRow, Option<TargetRankRow>);

/// The candidates of an earlier job by the same retriever.
///
/// A user's candidates follow from the history and from the items that can be proposed. They stand while the history is the
/// same, no item has come that could be better, and none of them has gone. The rank of a held-out item counts the whole
/// catalogue: it stands while no item comes or goes at all.
pub(crate) struct EarlierCandidates {
    users: EarlierUsers,
    candidates: Reader<CandidateRow>,
    ranks: Option<Reader<TargetRankRow>>,
    /// Items that the catalogue has no more.
    gone: HashSet<String>,
}

impl EarlierCandidates {
    /// Opens the candidates that a task may copy from.
    pub(crate) fn open(cx: &Context, population: &Population, known: &KnownItems, split: Split) -> Result<Since<Self>> {
        let Some(before) = Before::of(cx)? else { return Ok(Since::Never) };
        if let Some(reason) = changed_for_everybody(cx, &before) {
            return Ok(Since::Everybody(reason));
        }
        let mut gone = HashSet::new();
        if *before.input(Stage::Prepare)? != cx.input(Stage::Prepare, None)? {
            let items = table_prefix(Table::Items, before.input(Stage::Prepare)?);
            let rows: Vec<ItemRow> = cx.wait(read_all(&cx.store, &items))?;
            match compare(rows, &population.catalogue, known, split) {
                Ok(items) => gone = items,
                Err(reason) => return Ok(Since::Everybody(reason)),
            }
        }
        Ok(Since::Rows(Self {
            users: EarlierUsers::open(cx, &before)?,
            candidates: before.table(cx)?,
            ranks: if split.has_target() { Some(before.table(cx)?) } else { None },
            gone,
        }))
    }

    /// What becomes of the users of a shard.
    pub(crate) fn fates(
        &mut self,
        cx: &Context,
        catalogue: &Catalogue,
        users: &[User],
        shard: u32,
    ) -> Result<Vec<Fate<UserRows>>> {
        let mut before: ById<UserRows> = ById::new();
        for (part, histories) in self.users.parts(cx, shard, users)? {
            let candidates = part_of(cx, &self.candidates, part, &histories)?;
            let ranks = match &self.ranks {
                Some(ranks) => part_of(cx, ranks, part, &histories)?.into_iter().map(Some).collect(),
                None => vec![None; candidates.len()],
            };
            let rows = histories.iter().zip(candidates.into_iter().zip(ranks));
            before.extend(rows.map(|(history, rows)| (history.user_id.clone(), (history.items.clone(), rows))));
        }
        Ok(users.iter().map(|user| fate(user, before.remove(&user.id), catalogue, &self.gone)).collect())
    }
}

fn changed_for_everybody(cx: &Context, before: &Before) -> Option<Reason> {
    let (then, now) = (&before.spec, &cx.spec);
    if then.format_version != now.format_version {
        return Some(OTHER_VERSION);
    }
    if !before.has_inputs_of(now, &[role(Stage::Prepare, None)]) {
        return Some("the retriever changed".into());
    }
    let k = |config: &serde_json::Value| config["candidates"].to_string();
    let (then, now) = (&then.config, &now.config);
    (then != now).then(|| format!("retriever.candidates was {} and is {}", k(then), k(now)).into())
}

/// The items that have gone, or why everybody's candidates may be others.
fn compare(then: Vec<ItemRow>, now: &Catalogue, known: &KnownItems, split: Split) -> Result<HashSet<String>, Reason> {
    let then: HashSet<String> = then.into_iter().map(|item| item.item_id).collect();
    let new = || (1..=now.len()).filter(|item| !then.contains(now.id(*item)));
    let proposable = new().filter(|item| known.number(*item).is_some()).count();
    if proposable > 0 {
        return Err("an item came into the catalogue that the retriever knows".into());
    }
    let any_new = new().next().is_some();
    let gone: HashSet<String> = then.into_iter().filter(|item| now.index(item).is_none()).collect();
    if split.has_target() && (any_new || !gone.is_empty()) {
        return Err("the catalogue changed, and with it the ranks of held-out items".into());
    }
    Ok(gone)
}

fn fate(
    user: &User,
    before: Option<(Vec<String>, UserRows)>,
    catalogue: &Catalogue,
    gone: &HashSet<String>,
) -> Fate<UserRows> {
    let Some((history, rows)) = before else { return Fate::Rescored(NEW_USER) };
    let now = user.items.iter().map(|item| catalogue.id(*item));
    if !now.eq(history.iter().map(String::as_str)) {
        return Fate::Rescored("the history changed".into());
    }
    if rows.0.items.iter().any(|item| gone.contains(item)) {
        return Fate::Rescored("a candidate left the catalogue".into());
    }
    Fate::Copied(rows)
}
