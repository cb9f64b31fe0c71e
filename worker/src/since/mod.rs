//! Rows of an earlier job, for users of whom nothing has changed since.
//!
//! A score depends on nothing but the model and what it is shown of one user, so a copied row has the bits that computing it
//! again would give. What is shown is compared user by user: the histories of then and now, and whatever else goes in. The
//! users of a shard may lie in other shards of the earlier job; only the parts that overlap are read.

mod candidates;
mod fates;
mod parts;
mod rankings;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use data::artifact::{self, ArtifactId, Digest, SINCE, Spec, role, table_prefix};
use data::job::Stage;
use data::tables::{HistoryRow, Reader, Row, Table};

use crate::context::Context;
use crate::population::User;
use crate::{Error, Result};
pub(crate) use candidates::{EarlierCandidates, UserRows};
use fates::Reason;
pub(crate) use fates::{Fates, Since};
use parts::{Edges, overlapping};
pub(crate) use rankings::EarlierRankings;

/// Parts of histories that are kept while their neighbours are looked at.
const KEPT_PARTS: usize = 4;

const NEW_USER: Reason = Reason::Borrowed("new user");
const OTHER_VERSION: Reason = Reason::Borrowed("this version of the program scores in another way");

/// The artifact of before and what it was made from.
struct Before {
    artifact: ArtifactId,
    spec: Spec,
}

impl Before {
    /// The artifact that a task's spec names, if it names one.
    fn of(cx: &Context) -> Result<Option<Self>> {
        let Some(digest) = cx.spec.inputs.get(SINCE).cloned() else { return Ok(None) };
        let artifact = ArtifactId { stage: cx.artifact.stage, digest };
        let missing = || Error::Input { stage: cx.artifact.stage, role: SINCE.to_owned() };
        let spec = cx.wait(artifact::read_spec(&cx.store, &artifact))?.ok_or_else(missing)?;
        Ok(Some(Self { artifact, spec }))
    }

    /// An input of then.
    fn input(&self, stage: Stage) -> Result<&Digest> {
        let role = role(stage, None);
        self.spec.inputs.get(&role).ok_or(Error::Input { stage: self.artifact.stage, role })
    }

    /// Whether the artifact of now has the same inputs, apart from some.
    fn has_inputs_of(&self, now: &Spec, apart: &[String]) -> bool {
        let rest = |spec: &Spec| -> BTreeMap<String, Digest> {
            let compared = |role: &String| role != SINCE && !apart.contains(role);
            spec.inputs.iter().filter(|(role, _)| compared(role)).map(|(r, d)| (r.clone(), d.clone())).collect()
        };
        rest(&self.spec) == rest(now)
    }

    /// A table of the artifact.
    fn table<R: Row>(&self, cx: &Context) -> Result<Reader<R>> {
        Ok(cx.wait(Reader::open(&cx.store, &self.artifact.table_prefix(R::TABLE)))?)
    }
}

/// The users of before, part by part.
struct EarlierUsers {
    histories: Reader<HistoryRow>,
    edges: BTreeMap<usize, Edges>,
    recent: VecDeque<(usize, Arc<Vec<HistoryRow>>)>,
}

impl EarlierUsers {
    fn open(cx: &Context, before: &Before) -> Result<Self> {
        let folder = table_prefix(Table::Histories, before.input(Stage::Prepare)?);
        let histories = cx.wait(Reader::open(&cx.store, &folder))?;
        Ok(Self { histories, edges: BTreeMap::new(), recent: VecDeque::new() })
    }

    /// The parts that hold the users of a shard, with their users.
    fn parts(&mut self, cx: &Context, shard: u32, users: &[User]) -> Result<Vec<(usize, Arc<Vec<HistoryRow>>)>> {
        let (Some(first), Some(last)) = (users.first(), users.last()) else { return Ok(Vec::new()) };
        let parts = self.histories.len();
        let guess = shard as usize * parts / (cx.plan.shards as usize).max(1);
        let range = overlapping(parts, guess, (&first.id, &last.id), &mut |part| self.edges(cx, part))?;
        range.map(|part| Ok((part, self.part(cx, part)?))).collect()
    }

    fn edges(&mut self, cx: &Context, part: usize) -> Result<Edges> {
        if let Some(edges) = self.edges.get(&part) {
            return Ok(edges.clone());
        }
        let rows = self.part(cx, part)?;
        let edges = rows.first().zip(rows.last()).map(|(first, last)| (first.user_id.clone(), last.user_id.clone()));
        self.edges.insert(part, edges.clone());
        Ok(edges)
    }

    fn part(&mut self, cx: &Context, part: usize) -> Result<Arc<Vec<HistoryRow>>> {
        if let Some((_, rows)) = self.recent.iter().find(|(kept, _)| *kept == part) {
            return Ok(Arc::clone(rows));
        }
        cx.check()?;
        let rows = Arc::new(cx.wait(self.histories.part_through(&cx.store, part))?);
        self.recent.truncate(KEPT_PARTS - 1);
        self.recent.push_front((part, Arc::clone(&rows)));
        Ok(rows)
    }
}

/// The rows of one part of a table of before: one for every user of the part of histories, or none at all.
fn part_of<R: Row>(cx: &Context, table: &Reader<R>, part: usize, users: &[HistoryRow]) -> Result<Vec<R>> {
    let rows = cx.wait(table.part_through(&cx.store, part))?;
    if rows.is_empty() {
        return Ok(rows); // the shard was put aside: its users are computed anew
    }
    if rows.len() != users.len() {
        let what = format!("{} has other users than the histories", table.path(part));
        return Err(Error::Misfit { what });
    }
    Ok(rows)
}

/// The users of before by id, each with something of theirs.
type ById<T> = HashMap<String, (Vec<String>, T)>;
