//! Streams between workers and coordinators: each is ordered and dies as a whole. Across streams anything goes: words of
//! a dead session may arrive long after those of the next one, and a side may never hear that the other is gone.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::{FromWorker, ToWorker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::executor::Sim;

/// The time after which a side that hears nothing of the other's end gives the stream up.
const KEEP_ALIVE: u64 = 12_000;

/// One side of a stream: says `S`, hears `H`.
pub(crate) struct End<S: Send + 'static, H: Send + 'static> {
    sim: Sim,
    out: Way<S>,
    inward: Way<H>,
    heard: UnboundedReceiver<H>,
}

/// The worker's side.
pub(crate) type WorkerEnd = End<FromWorker, ToWorker>;
/// The coordinator's side.
pub(crate) type CoordinatorEnd = End<ToWorker, FromWorker>;

/// One direction.
struct Way<T>(Arc<Mutex<Flow<T>>>);

struct Flow<T> {
    /// Where it comes out; nothing once that side has seen the end.
    to: Option<UnboundedSender<T>>,
    /// When the last message arrives.
    last: Duration,
    /// Messages that would arrive later are lost.
    lost_after: Option<Duration>,
    /// The saying side knows that the stream is dead.
    closed: bool,
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> Way<T> {
    fn new() -> (Self, UnboundedReceiver<T>) {
        let (to, heard) = unbounded_channel();
        let flow = Flow { to: Some(to), last: Duration::ZERO, lost_after: None, closed: false };
        (Self(Arc::new(Mutex::new(flow))), heard)
    }

    fn lock(&self) -> MutexGuard<'_, Flow<T>> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    /// What comes next arrives behind all that came before.
    fn arrival(&self, sim: &Sim) -> Duration {
        let slow = if sim.chance(30) { sim.between(0, 2500) } else { sim.between(0, 40) };
        let mut flow = self.lock();
        flow.last = (flow.last + Duration::from_micros(1)).max(sim.now() + slow);
        flow.last
    }

    fn send(&self, sim: &Sim, message: T) -> bool {
        if self.lock().closed {
            return false;
        }
        let at = self.arrival(sim);
        let (way, clock) = (self.clone(), sim.clone());
        sim.call(at - sim.now(), move || {
            let flow = way.lock();
            let lost = flow.lost_after.is_some_and(|t| clock.now() > t);
            if let Some(to) = flow.to.as_ref().filter(|_| !lost) {
                let _ = to.send(message);
            }
        });
        true
    }

    /// The hearing side sees the end.
    fn end(&self) {
        self.lock().to = None;
    }
}

/// A stream between two sides, whom `broken` tells that it is cut.
pub(crate) fn stream(sim: &Sim) -> (WorkerEnd, CoordinatorEnd, Cut) {
    let (up, heard_above) = Way::new();
    let (down, heard_below) = Way::new();
    let below = End { sim: sim.clone(), out: up.clone(), inward: down.clone(), heard: heard_below };
    let above = End { sim: sim.clone(), out: down.clone(), inward: up.clone(), heard: heard_above };
    (below, above, Cut { sim: sim.clone(), up, down })
}

/// Cuts a stream.
pub(crate) struct Cut {
    sim: Sim,
    up: Way<FromWorker>,
    down: Way<ToWorker>,
}

impl Cut {
    pub(crate) fn cut(&self) {
        lose(&self.sim, &self.up, &self.down);
        lose(&self.sim, &self.down, &self.up);
    }
}

/// From now on nothing comes through; what is under way may still, for a while. The hearing side sees it sooner or later.
fn lose<T: Send + 'static, B: Send + 'static>(sim: &Sim, way: &Way<T>, back: &Way<B>) {
    let lost_after = sim.now() + sim.between(0, 2500);
    way.lock().lost_after.get_or_insert(lost_after);
    let unseen = if sim.chance(150) { KEEP_ALIVE } else { 3000 };
    let (way, back) = (way.clone(), back.clone());
    sim.call(sim.between(0, unseen), move || {
        way.end();
        back.lock().closed = true;
    });
}

impl<S: Send + 'static, H: Send + 'static> End<S, H> {
    /// Says something. Fails only if the stream is known to be dead.
    pub(crate) fn say(&self, message: S) -> bool {
        self.out.send(&self.sim, message)
    }

    /// The next word of the other side; nothing once the stream is dead.
    pub(crate) async fn hear(&mut self) -> Option<H> {
        self.heard.recv().await
    }
}

impl<S: Send + 'static, H: Send + 'static> Drop for End<S, H> {
    /// A side that goes says so behind its last word; if its machine went with it, nobody does.
    fn drop(&mut self) {
        let unsaid = self.sim.chance(100);
        let last = self.out.lock().last.max(self.sim.now());
        let wait = if unsaid { Duration::from_millis(KEEP_ALIVE) } else { self.sim.between(0, 40) };
        let (out, inward) = (self.out.clone(), self.inward.clone());
        self.sim.call(last - self.sim.now() + wait, move || {
            out.end();
            inward.lock().closed = true;
        });
    }
}
