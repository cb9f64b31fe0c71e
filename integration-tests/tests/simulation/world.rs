//! What all processes share: the store, the network, and who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coordinator::core::Policy;
use data::artifact::ArtifactId;
use data::job::Stage;
use data::store::{Retry, Store};
use object_store::memory::InMemory;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::coordinator_process::{Input, lead};
use crate::executor::{Process, Sim};
use crate::invariants::Ledger;
use crate::network::{Cut, WorkerEnd, stream};
use crate::rings::Rings;
use crate::store::{BadStore, Line};
use crate::worker_process::work;

/// Time between two heartbeats.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// As patient as a coordinator that has no day to lose.
pub(crate) const POLICY: Policy = Policy {
    dead_after: Duration::from_secs(4),
    suspect_after: Duration::from_secs(2),
    max_failures: 3,
    quarantine_after: 3,
    max_losses: 5,
    lease_target: Duration::from_secs(6),
    max_bundle: 4,
    duplicate_after: Duration::from_secs(3),
    claim_grace: Duration::from_secs(2),
    last_call: Duration::from_secs(1),
    max_step_losses: 3,
    bar_for: Duration::from_secs(5),
    // Faults are many here, and nobody's fault.
    max_worker_failures: 1000,
    max_training_failures: 1000,
    rebalance_every: Duration::from_secs(2),
};
/// The most members of a gang.
pub(crate) const GANG: u32 = 3;
const RETRY: Retry =
    Retry { attempts: 5, first: Duration::from_millis(50), longest: Duration::from_secs(1), deadline: Duration::MAX };

/// A rule that is broken, to see that it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// "It exists already" is believed and not read back.
    ExistsBelieved,
    /// `_SUCCESS` is written before the shards are done.
    EarlySuccess,
    /// What workers claim is ignored.
    ClaimsIgnored,
    /// Coordinators cannot tell their claims to a term from those of others.
    SameClaims,
}

/// Everything; cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) objects: Arc<InMemory>,
    pub(crate) bad: BadStore,
    pub(crate) catalogue: Arc<Catalogue>,
    /// A shard that kills or stuns most of those who compute it.
    pub(crate) poison: Option<(ArtifactId, u32)>,
    pub(crate) broken: Option<Broken>,
    /// What members of gangs say to each other.
    pub(crate) rings: Rings,
    /// Nothing goes wrong any more.
    healed: Arc<AtomicBool>,
    roster: Arc<Mutex<Roster>>,
}

#[derive(Default)]
struct Roster {
    coordinators: BTreeMap<Process, Listening>,
    terms: BTreeSet<u64>,
    streams: Vec<Cut>,
    workers: BTreeMap<u64, (Process, CancellationToken)>,
}

struct Listening {
    term: u64,
    inbox: UnboundedSender<Input>,
}

/// A coordinator is found as long as this lives.
pub(crate) struct Registered(World, Process);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.roster().coordinators.remove(&self.1);
    }
}

impl World {
    pub(crate) fn new(sim: Sim, broken: Option<Broken>) -> Self {
        let (shards, jobs) = (2 + sim.draw(6) as u32, 1 + sim.draw(2) as usize);
        let catalogue = Arc::new(Catalogue::new(shards, jobs));
        let objects = catalogue.prepared();
        let upto = |most: u64| if sim.chance(400) { 0 } else { sim.draw(most) };
        let line = Line {
            lost: upto(150),
            late: upto(60),
            echoed: upto(100),
            conflict: upto(100),
            busy: upto(150),
            slow: upto(200),
        };
        let stages = catalogue.all_stages();
        let deadly = stages.keys().filter(|id| matches!(id.stage, Stage::Retrieve | Stage::Rank)).cloned();
        let deadly: Vec<ArtifactId> = deadly.collect();
        let chosen = deadly[sim.draw(deadly.len() as u64) as usize].clone();
        let poison = sim.chance(400).then(|| (chosen, sim.draw(u64::from(shards)) as u32));
        sim.log(|| format!("{shards} shards, {jobs} jobs, poison {poison:?}, {line:?}"));
        let ledger = Ledger::new(catalogue.clone());
        let bad = BadStore::new(&sim, objects.clone(), ledger, line, broken);
        let (rings, healed, roster) = (Rings::default(), Arc::default(), Arc::default());
        Self { sim, objects, bad, catalogue, poison, broken, rings, healed, roster }
    }

    /// Whether things still go wrong by themselves.
    pub(crate) fn is_restless(&self) -> bool {
        !self.healed.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
        self.bad.heal();
        self.rings.part(None);
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().expect("nothing panics while it holds this")
    }

    /// The store as a process opens it.
    pub(crate) fn store(&self) -> Store {
        let objects = Arc::new(self.bad.clone());
        Store::over(objects, "s3://shop").with_retry(RETRY).with_clock(Arc::new(self.sim.clone()))
    }

    /// A coordinator has taken a term.
    pub(crate) fn leads(&self, term: u64) {
        if !self.roster().terms.insert(term) {
            self.sim.violated(format!("two coordinators lead term {term}"));
        }
    }

    pub(crate) fn listen(&self, process: Process, term: u64, inbox: UnboundedSender<Input>) -> Registered {
        self.roster().coordinators.insert(process, Listening { term, inbox });
        Registered(self.clone(), process)
    }

    /// The coordinators that listen, newest last.
    pub(crate) fn coordinators(&self) -> Vec<(Process, UnboundedSender<Input>)> {
        let roster = self.roster();
        let mut found: Vec<_> = roster.coordinators.iter().map(|(p, l)| (l.term, *p, l.inbox.clone())).collect();
        found.sort_by_key(|(term, ..)| *term);
        found.into_iter().map(|(_, process, inbox)| (process, inbox)).collect()
    }

    /// A stream to some coordinator that listens.
    pub(crate) fn connect(&self) -> Option<WorkerEnd> {
        let mut found = self.coordinators();
        if found.is_empty() {
            return None;
        }
        let (_, inbox) = found.swap_remove(self.sim.draw(found.len() as u64) as usize);
        let (below, above, cut) = stream(&self.sim);
        self.roster().streams.push(cut);
        self.sim.call(self.sim.between(1, 50), move || drop(inbox.send(Input::Connected(above))));
        Some(below)
    }

    /// Cuts some stream.
    pub(crate) fn cut(&self) {
        let mut roster = self.roster();
        let recent = roster.streams.len().min(8) as u64;
        if recent > 0 {
            let at = roster.streams.len() - 1 - self.sim.draw(recent) as usize;
            let cut = roster.streams.swap_remove(at);
            drop(roster);
            self.sim.log(|| "a stream is cut".to_owned());
            cut.cut();
        }
    }

    pub(crate) fn start_coordinator(&self) {
        let process = self.sim.process();
        let world = self.clone();
        self.sim.spawn(process, async move { lead(world, process).await });
    }

    /// Starts the worker of a place.
    pub(crate) fn start_worker(&self, place: u64) {
        let (process, stop) = (self.sim.process(), CancellationToken::new());
        self.roster().workers.insert(place, (process, stop.clone()));
        let world = self.clone();
        self.sim.log(|| format!("worker {process} starts at place {place}"));
        self.sim.spawn(process, async move {
            work(&world, process, place, stop).await;
            world.sim.log(|| format!("worker {process} has ended"));
            world.gone(process);
        });
    }

    /// Kills a process, and with it the worker that it may be.
    pub(crate) fn kill(&self, process: Process) {
        self.sim.log(|| format!("process {process} is killed"));
        self.sim.kill(process);
        self.gone(process);
    }

    fn gone(&self, process: Process) {
        self.roster().workers.retain(|_, (worker, _)| *worker != process);
    }

    /// The workers: place, process, and what tells them to leave.
    pub(crate) fn workers(&self) -> Vec<(u64, Process, CancellationToken)> {
        self.roster().workers.iter().map(|(place, (process, stop))| (*place, *process, stop.clone())).collect()
    }
}
