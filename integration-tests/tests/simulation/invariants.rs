//! What must hold: of the objects at every write, of what coordinators decide at every decision, and of the tables that a
//! reader finds at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use coordinator::core::Lease;
use coordinator::plan::PlannedStage;
use data::artifact::{ArtifactId, Digest, Done, QUARANTINED, SUCCESS};
use data::job::{Split, Stage};
use data::store::Store;
use data::tables::{CandidateRow, MetricRow, RankingRow, RejectedRow, Row, Table, TargetRankRow, decode_part};
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proto::{Claim, FromWorker, Generation, GenerationId, JobStatus, LeaseId, StageState, WorkerId};

use crate::catalogue::{Catalogue, SPLIT, users};
use crate::executor::Sim;
use crate::world::GANG;

/// Watches the objects; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Mutex<Facts>>);

struct Facts {
    catalogue: Arc<Catalogue>,
    stages: BTreeMap<ArtifactId, PlannedStage>,
    /// Folders with a `_SUCCESS`.
    complete: BTreeSet<String>,
    /// Objects that a done record names.
    named: BTreeSet<String>,
    done: BTreeMap<ArtifactId, BTreeSet<u32>>,
}

impl Ledger {
    pub(crate) fn new(catalogue: Arc<Catalogue>) -> Self {
        let stages = catalogue.all_stages();
        let (complete, named, done) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(Facts { catalogue, stages, complete, named, done })))
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    /// An object was written.
    pub(crate) fn wrote(&self, sim: &Sim, objects: &InMemory, path: &str, created: bool, bytes: &Bytes) {
        if !created && path.starts_with("_control") {
            sim.violated(format!("{path} was written over"));
        }
        let mut facts = self.lock();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == SUCCESS {
            facts.check_success(sim, folder);
            facts.complete.insert(folder.to_owned());
        } else if facts.complete.contains(folder) {
            sim.violated(format!("{path} was written behind _SUCCESS"));
        }
        if folder.ends_with("/done") {
            facts.check_done(sim, objects, path, bytes);
        }
    }

    /// An object was removed.
    pub(crate) fn removed(&self, sim: &Sim, path: &str) {
        if path.starts_with("_control") || path.ends_with(SUCCESS) || self.lock().named.contains(path) {
            sim.violated(format!("{path} was removed"));
        }
    }
}

impl Facts {
    fn shards(&self, id: &ArtifactId) -> u32 {
        if matches!(id.stage, Stage::Retrieve | Stage::Rank) { self.catalogue.shards } else { 1 }
    }

    fn check_success(&self, sim: &Sim, folder: &str) {
        for id in self.stages.keys().filter(|id| folder.ends_with(id.digest.as_str())) {
            let done = self.done.get(id).map_or(0, BTreeSet::len);
            if done != self.shards(id) as usize {
                sim.violated(format!("{folder} is called complete with {done} of {} shards done", self.shards(id)));
            }
        }
    }

    /// A done record names parts that are there, and accounts for every user of the shard.
    fn check_done(&mut self, sim: &Sim, objects: &InMemory, path: &str, bytes: &Bytes) {
        let Some(id) = self.stages.keys().find(|id| path.starts_with(&id.control_prefix())).cloned() else { return };
        let Ok(done) = serde_json::from_slice::<Done>(bytes) else {
            return sim.violated(format!("{path} cannot be read"));
        };
        for part in &done.parts {
            match read(objects, &part.path) {
                Some(there) if Digest::of_bytes(&there) == part.sha256 && there.len() as u64 == part.bytes => {}
                Some(_) => sim.violated(format!("{path} describes another {} than is there", part.path)),
                None => sim.violated(format!("{path} names {}, which is not there", part.path)),
            }
            self.named.insert(part.path.clone());
        }
        let whole = matches!(id.stage, Stage::Evaluate | Stage::TrainRanker);
        let expected = if whole { 1 } else { users(done.shard).len() as u64 };
        let aside = done.rejected.get(QUARANTINED).copied().unwrap_or(0);
        let of_table = |table| done.parts.iter().filter(|p| p.table == table).map(|p| p.rows).sum::<u64>();
        for table in tables(id.stage) {
            if of_table(table) + aside != expected {
                let rows = of_table(table);
                sim.violated(format!("{path}: {rows} rows of {table:?} and {aside} put aside, of {expected}"));
            }
        }
        if done.rows + aside != expected || of_table(Table::Rejected) != aside {
            sim.violated(format!("{path}: {} rows and {aside} put aside, of {expected}", done.rows));
        }
        if !self.done.entry(id).or_default().insert(done.shard) {
            sim.violated(format!("a second done record: {path}"));
        }
    }
}

fn tables(stage: Stage) -> Vec<Table> {
    match stage {
        Stage::Retrieve => vec![Table::Candidates, Table::TargetRanks],
        Stage::Rank => vec![Table::Rankings],
        Stage::TrainRanker => vec![],
        _ => vec![Table::Metrics],
    }
}

fn read(objects: &InMemory, path: &str) -> Option<Bytes> {
    let got = async { objects.get(&Path::from(path)).await?.bytes().await };
    got.now_or_never()?.ok()
}

/// Every user stands in every table exactly once, or among the rejected ones; and nothing else lies there.
///
/// # Errors
/// What is wrong with which table.
pub(crate) fn check_tables(objects: &Arc<InMemory>, catalogue: &Catalogue) -> Result<(), String> {
    let store = Store::over(objects.clone() as Arc<dyn ObjectStore>, "s3://shop");
    for stage in catalogue.all_stages().values().filter(|s| s.artifact.stage != Stage::Prepare) {
        let id = &stage.artifact;
        let complete = data::artifact::is_complete(&store, id).now_or_never();
        if !matches!(complete, Some(Ok(true))) {
            return Err(format!("{id} is not complete: {complete:?}"));
        }
        match id.stage {
            Stage::Retrieve => {
                whole::<CandidateRow>(&store, id, catalogue, |r| (r.split, r.user_id.clone()))?;
                whole::<TargetRankRow>(&store, id, catalogue, |r| (r.split, r.user_id.clone()))?;
            }
            Stage::TrainRanker => {}
            Stage::Rank => whole::<RankingRow>(&store, id, catalogue, |r| (r.split, r.user_id.clone()))?,
            _ => {
                let rows: Vec<MetricRow> = rows(&store, id)?;
                if rows.len() != 1 {
                    return Err(format!("{id} has {} rows", rows.len()));
                }
            }
        }
    }
    Ok(())
}

fn whole<R: Row>(
    store: &Store,
    id: &ArtifactId,
    catalogue: &Catalogue,
    user: impl Fn(&R) -> (Split, String),
) -> Result<(), String> {
    let mut seen: Vec<String> = Vec::new();
    for row in rows::<R>(store, id)? {
        let (split, user) = user(&row);
        if split != SPLIT {
            return Err(format!("{id}: {user} has the split {split}"));
        }
        seen.push(user);
    }
    seen.extend(rows::<RejectedRow>(store, id)?.into_iter().filter_map(|row| row.user_id));
    seen.sort();
    let mut expected: Vec<String> = (0..catalogue.shards).flat_map(users).collect();
    expected.sort();
    if seen == expected { Ok(()) } else { Err(format!("{id}: {:?} holds {seen:?}, not {expected:?}", R::TABLE)) }
}

/// All rows that a reader of the folder would see.
fn rows<R: Row>(store: &Store, id: &ArtifactId) -> Result<Vec<R>, String> {
    let folder = id.table_prefix(R::TABLE);
    let entries = store.list(&folder).now_or_never().and_then(Result::ok).unwrap_or_default();
    let mut rows = Vec::new();
    for entry in &entries {
        let name = &entry.path[folder.len() + 1..];
        if name == SUCCESS {
            continue;
        }
        let bytes = store.get(&entry.path).now_or_never().and_then(Result::ok).unwrap_or_default();
        rows.extend(decode_part::<R>(bytes).map_err(|e| format!("{}: {e}", entry.path))?);
    }
    if !entries.is_empty() && !entries.iter().any(|e| e.path.ends_with(SUCCESS)) {
        return Err(format!("{folder} has no {SUCCESS}"));
    }
    Ok(rows)
}

/// Watches one coordinator: what it was told, and what it did with that.
pub(crate) struct Watch {
    sim: Sim,
    term: u64,
    leases: BTreeMap<LeaseId, Holding>,
    known: BTreeMap<ArtifactId, BTreeSet<u32>>,
    /// Shards done by digest, as last shown.
    shown: BTreeMap<String, u32>,
    /// The generation of every training that was begun last, and who has been in one.
    generations: BTreeMap<ArtifactId, GenerationId>,
    veterans: BTreeSet<LeaseId>,
}

struct Holding {
    worker: WorkerId,
    artifact: ArtifactId,
    shards: BTreeSet<u32>,
    revoked: bool,
}

impl Watch {
    pub(crate) fn new(sim: &Sim, term: u64) -> Self {
        let (leases, known, shown) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (generations, veterans) = (BTreeMap::new(), BTreeSet::new());
        Self { sim: sim.clone(), term, leases, known, shown, generations, veterans }
    }

    pub(crate) fn opened(&mut self, id: &ArtifactId, done: &[u32]) {
        self.known.entry(id.clone()).or_default().extend(done);
    }

    pub(crate) fn put_aside(&mut self, id: &ArtifactId, shard: u32) {
        self.known.entry(id.clone()).or_default().insert(shard);
    }

    /// A generation has a higher number than those before it, is of members that hold a lease, and has one of those who
    /// have trained, as long as there is one: what is learned is in their hands only.
    pub(crate) fn begun(&mut self, generation: &Generation) {
        let Generation { lease, number, members, .. } = generation;
        let Some(Holding { artifact, .. }) = self.leases.get(lease) else {
            return self.sim.violated(format!("term {}: {lease} begins {number} and is not held", self.term));
        };
        if self.generations.insert(artifact.clone(), *number).is_none_or(|last| last < *number) {
            let mut trained = self.leases.iter().filter(|(_, h)| h.artifact == *artifact && !h.revoked);
            let any = trained.any(|(lease, _)| self.veterans.contains(lease));
            if any && !members.iter().any(|member| self.veterans.contains(&member.lease)) {
                self.sim.violated(format!("term {}: {number} begins anew though somebody has trained", self.term));
            }
        } else if self.generations.get(artifact) != Some(number) {
            self.sim.violated(format!("term {}: {number} is older than another of {artifact}", self.term));
        }
        if generation.rank as usize + 1 == members.len() {
            self.veterans.extend(members.iter().map(|member| member.lease));
        }
    }

    pub(crate) fn claimed(&mut self, worker: WorkerId, id: Option<&ArtifactId>, claim: &Claim) {
        if claim.generation.is_some() {
            self.veterans.insert(claim.lease);
        }
        if let Some(artifact) = id.cloned() {
            let shards = claim.shards.iter().copied().collect();
            self.leases.insert(claim.lease, Holding { worker, artifact, shards, revoked: false });
        }
    }

    /// A lease is taken back; if the coordinator never took it in, it knows nothing more of it.
    pub(crate) fn revoked(&mut self, lease: LeaseId, held: bool) {
        if !held {
            self.leases.remove(&lease);
        } else if let Some(holding) = self.leases.get_mut(&lease) {
            holding.revoked = true;
        }
    }

    pub(crate) fn gone(&mut self, worker: WorkerId) {
        self.leases.retain(|_, holding| holding.worker != worker);
    }

    pub(crate) fn said(&mut self, worker: WorkerId, word: &FromWorker) {
        match word {
            FromWorker::Committed { lease, committed } => {
                if let Some(holding) = self.leases.get_mut(lease).filter(|h| h.worker == worker) {
                    holding.shards.remove(&committed.shard);
                    self.known.entry(holding.artifact.clone()).or_default().insert(committed.shard);
                }
            }
            // Its gang counts with it no more.
            FromWorker::Leaving => {
                let of = |h: &&mut Holding| h.worker == worker && h.artifact.stage == Stage::TrainRanker;
                self.leases.values_mut().filter(of).for_each(|holding| holding.revoked = true);
            }
            FromWorker::Ended { lease } | FromWorker::Failed { lease, .. }
                if self.leases.get(lease).is_some_and(|h| h.worker == worker) =>
            {
                self.leases.remove(lease);
            }
            _ => {}
        }
    }

    /// A grant is of shards that are not known to be done, and that nobody holds; or of one that one worker is slow with.
    pub(crate) fn granted(&mut self, worker: WorkerId, lease: &Lease) {
        let holds = |h: &&Holding| h.artifact == lease.artifact && !h.revoked;
        for shard in &lease.shards {
            if self.known.get(&lease.artifact).is_some_and(|known| known.contains(shard)) {
                self.sim
                    .violated(format!("term {} grants shard {shard} of {}, which is done", self.term, lease.artifact));
            }
            let hands = self.leases.values().filter(holds).filter(|h| h.shards.contains(shard)).count();
            let most = if lease.artifact.stage == Stage::TrainRanker { GANG as usize - 1 } else { 1 };
            if hands > most || (hands > 0 && lease.shards.len() != 1) {
                let what = format!("shard {shard} of {} with {hands} others at work on it", lease.artifact);
                self.sim.violated(format!("term {} grants {what}", self.term));
            }
        }
        if self.leases.values().any(|h| h.worker == worker && !h.revoked) {
            self.sim.violated(format!("term {} grants a second lease to {worker}", self.term));
        }
        let (artifact, shards) = (lease.artifact.clone(), lease.shards.iter().copied().collect());
        self.leases.insert(lease.id, Holding { worker, artifact, shards, revoked: false });
    }

    /// What is shown as committed only grows, and the users of what was put aside are counted once.
    pub(crate) fn shown(&mut self, status: &JobStatus) {
        for stage in &status.stages {
            let aside: usize = stage.quarantined.iter().map(|shard| users(*shard).len()).sum();
            let counted = stage.rejected.get(QUARANTINED).copied().unwrap_or(0);
            if counted != aside as u64 {
                let what = format!("{counted} users of {} put aside, of {:?}", stage.stage, stage.quarantined);
                self.sim.violated(format!("term {} shows {what}", self.term));
            }
        }
        for stage in status.stages.iter().filter(|s| s.state == StageState::Running) {
            let last = self.shown.entry(stage.digest.clone()).or_default();
            if stage.shards.done < *last {
                let what = format!("{} from {last} to {} shards", stage.stage, stage.shards.done);
                self.sim.violated(format!("term {} goes back in {what}", self.term));
            }
            *last = stage.shards.done;
        }
    }

    /// These stages may begin anew.
    pub(crate) fn forget(&mut self, stages: &[PlannedStage]) {
        for stage in stages {
            self.shown.remove(stage.artifact.digest.as_str());
        }
    }
}
