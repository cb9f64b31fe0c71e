//! A member of a gang: it loads, says that it is ready, trains in the generations that it is told of, and whoever is the
//! first in the last one commits.

use std::sync::{Arc, Mutex, MutexGuard};

use data::artifact::{ArtifactId, Plan};
use proto::{Broken, FromWorker, Generation, GenerationId, Grant, LeaseId, Progress, Ready, ToWorker};
use tokio::sync::mpsc::UnboundedReceiver;

use super::task::{Ended, Task};
use crate::rings::{Heard, Seat, WATCHDOG, Word};

/// Steps of a training.
const STEPS: u64 = 8;
/// Steps between two checkpoints.
const CHECKPOINT: u64 = 3;

/// Where a member stands, for whoever speaks with the coordinator; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Standing(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    generation: Option<GenerationId>,
    /// What it says while it waits.
    ready: Option<Ready>,
    /// Whether this session has said it.
    said: bool,
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    pub(super) fn generation(&self) -> Option<GenerationId> {
        self.lock().generation
    }

    /// What another session has to say again.
    pub(super) fn again(&self) -> Option<Ready> {
        let mut state = self.lock();
        state.said = state.ready.is_some();
        state.ready.clone()
    }

    /// Whether it is still to be said that it waits.
    pub(super) fn say(&self) -> bool {
        let mut state = self.lock();
        let says = state.ready.is_some() && !state.said;
        state.said = true;
        says
    }

    fn waits(&self, ready: Ready) {
        *self.lock() = State { generation: None, ready: Some(ready), said: false };
    }

    fn begins(&self, generation: GenerationId) {
        *self.lock() = State { generation: Some(generation), ready: None, said: false };
    }
}

/// How a generation ended for a member.
enum End {
    /// The training is over.
    Done,
    /// All have done the step at hand.
    InOrder,
    Broken(Broken),
}

/// A generation as a member is in it.
struct Part<'a> {
    task: &'a Task,
    grant: &'a Grant,
    id: &'a ArtifactId,
    plan: &'a Plan,
    number: GenerationId,
    rank: u32,
    seat: Seat,
    orders: &'a mut UnboundedReceiver<ToWorker>,
    /// It was told to regroup.
    regroups: bool,
    round: u64,
}

impl Task {
    pub(super) async fn train(
        &self,
        grant: &Grant,
        id: &ArtifactId,
        plan: &Plan,
        mut orders: UnboundedReceiver<ToWorker>,
    ) -> Result<(), Ended> {
        let sim = &self.world.sim;
        sim.sleep(sim.between(50, 1500)).await;
        if sim.chance(20) && self.world.is_restless() {
            return Err(Ended::Failed("out of memory".to_owned()));
        }
        let (mut step, mut broken) = (self.world.rings.checkpoint(id), None);
        loop {
            self.say_ready(grant.lease, step, broken.take());
            let generation = self.next_generation(&mut orders).await?;
            self.standing.begins(generation.number);
            match self.generation(grant, id, plan, &generation, &mut orders, &mut step).await? {
                End::Done => return Ok(()),
                End::InOrder => {}
                End::Broken(why) => broken = Some(why),
            }
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
        }
    }

    fn say_ready(&self, lease: LeaseId, step: u64, broken: Option<Broken>) {
        let (address, about) = (format!("place-{}", self.place), format!("examples of step {}", step + 1));
        let ready = Ready { lease, address, certificate: Vec::new(), step, about, broken };
        self.standing.waits(ready.clone());
        let _ = self.to_desk.send(FromWorker::Ready(ready));
    }

    async fn next_generation(&self, orders: &mut UnboundedReceiver<ToWorker>) -> Result<Generation, Ended> {
        loop {
            let order = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                order = orders.recv() => order.ok_or(Ended::Stopped)?,
            };
            // Orders to end are about a generation that is over for it.
            if let ToWorker::Generation(generation) = order {
                return Ok(generation);
            }
        }
    }

    async fn generation(
        &self,
        grant: &Grant,
        id: &ArtifactId,
        plan: &Plan,
        generation: &Generation,
        orders: &mut UnboundedReceiver<ToWorker>,
        step: &mut u64,
    ) -> Result<End, Ended> {
        let seat = self.world.rings.enter(&self.world.sim, generation, self.place);
        let (number, rank) = (generation.number, generation.rank);
        let mut part = Part { task: self, grant, id, plan, number, rank, seat, orders, regroups: false, round: 0 };
        part.live(step).await
    }
}

impl Part<'_> {
    async fn live(&mut self, step: &mut u64) -> Result<End, Ended> {
        // Who is behind gets the state of who is not.
        let mut outcome = match self.together(*step).await {
            Ok(outcome) => outcome,
            Err(end) => return Ok(End::Broken(end)),
        };
        *step = outcome.step;
        self.task.world.sim.log(|| format!("{} is in {} from step {step}", self.grant.lease, self.number));
        while *step < STEPS && !outcome.regroup {
            if let Err(end) = self.compute().await {
                return Ok(End::Broken(end));
            }
            outcome = match self.together(*step).await {
                Ok(outcome) => outcome,
                Err(end) => return Ok(End::Broken(end)),
            };
            *step += 1;
            self.tell(*step);
        }
        if *step < STEPS {
            self.seat.leave_in_order();
            return Ok(End::InOrder);
        }
        self.end(*step).await
    }

    /// The step's own work.
    async fn compute(&mut self) -> Result<(), Broken> {
        let sim = self.task.world.sim.clone();
        let slow = if self.task.place == 0 { 3 } else { 1 };
        let mut work = sim.sleep(sim.between(20, 250 * slow));
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => self.obey(order)?,
                () = &mut work => return Ok(()),
            }
        }
    }

    /// A round of words, which completes if all members are there and say theirs.
    async fn together(&mut self, step: u64) -> Result<Word, Broken> {
        let regroup = self.regroups || self.task.stop.is_cancelled();
        self.seat.say(self.round, Word { step, regroup });
        self.round += 1;
        let mut patience = self.task.world.sim.sleep(WATCHDOG);
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => self.obey(order)?,
                heard = self.seat.hear() => match heard {
                    Some(Heard::Round(outcome)) => return Ok(outcome),
                    Some(Heard::Unreachable(other)) => return Err(self.broken("no route", Some(other))),
                    Some(Heard::Broken) | None => return Err(self.broken("a stream ended", None)),
                },
                () = &mut patience => return Err(self.broken("nobody says anything", None)),
            }
        }
    }

    fn obey(&mut self, order: Option<ToWorker>) -> Result<(), Broken> {
        match order {
            Some(ToWorker::Regroup { generation, .. }) if generation == self.number => self.regroups = true,
            Some(ToWorker::Abort { generation, reason, .. }) if generation == self.number => {
                return Err(self.broken(&reason, None));
            }
            Some(ToWorker::Generation(later)) => {
                let what = format!("{} is told of {} while it is in {}", self.grant.lease, later.number, self.number);
                self.task.world.sim.violated(what);
            }
            _ => {}
        }
        Ok(())
    }

    fn broken(&self, reason: &str, unreachable: Option<LeaseId>) -> Broken {
        Broken { generation: self.number, reason: reason.to_owned(), unreachable }
    }

    fn tell(&self, step: u64) {
        if self.rank == 0 && step.is_multiple_of(CHECKPOINT) {
            self.task.world.rings.keep(self.id, step);
        }
        let progress = Progress { done: step, total: STEPS, unit: "steps".into(), note: String::new() };
        let _ = self.task.to_desk.send(FromWorker::Progress { lease: self.grant.lease, progress });
    }

    /// The first commits, and the others wait for its word.
    async fn end(&mut self, step: u64) -> Result<End, Ended> {
        if self.rank == 0 {
            let began = self.task.world.sim.now();
            self.task.finish(self.grant, self.id, self.plan, 0, began).await?;
        }
        self.seat.say(self.round, Word { step, regroup: false });
        if self.rank == 0 {
            self.seat.leave_in_order();
            return Ok(End::Done);
        }
        let mut patience = self.task.world.sim.sleep(3 * WATCHDOG);
        loop {
            tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return Err(Ended::Stopped),
                order = self.orders.recv() => if let Err(end) = self.obey(order) {
                    return Ok(End::Broken(end));
                },
                heard = self.seat.hear() => {
                    if let Some(Heard::Round(_)) = heard {
                        self.seat.leave_in_order();
                        return Ok(End::Done);
                    }
                    return Ok(End::Broken(self.broken("a stream ended", None)));
                }
                () = &mut patience => return Ok(End::Broken(self.broken("the first says nothing", None))),
            }
        }
    }
}
