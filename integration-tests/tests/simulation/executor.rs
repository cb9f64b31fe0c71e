//! One thread, virtual time and a seed: tasks run in an order that the seed chooses, and time passes when none can run.
//!
//! Tasks belong to processes. A process dies between two of its awaits, and sleeps there while it is frozen; timers and
//! calls that it left with the network or the store go on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

/// A process; the tasks of one die together.
pub(crate) type Process = u64;

/// Time, chance and tasks; cheap to clone.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<Inner>>);

struct Inner {
    now: Duration,
    random: u64,
    processes: Process,
    tasks: u64,
    timers: BTreeMap<(Duration, u64), Timer>,
    ready: BTreeSet<u64>,
    spawned: Vec<(u64, Process, BoxFuture<'static, ()>)>,
    dying: Vec<Process>,
    frozen: BTreeSet<Process>,
    violation: Option<String>,
    trace: Option<Vec<String>>,
}

enum Timer {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

struct TaskWaker {
    task: u64,
    sim: Sim,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.sim.lock().ready.insert(self.task);
    }
}

impl Sim {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Duration::ZERO,
            random: seed,
            processes: 0,
            tasks: 0,
            timers: BTreeMap::new(),
            ready: BTreeSet::new(),
            spawned: Vec::new(),
            dying: Vec::new(),
            frozen: BTreeSet::new(),
            violation: None,
            trace: traced.then(Vec::new),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is still to come: it holds on to what has been.
    pub(crate) fn close(&self) {
        let rest = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.timers), std::mem::take(&mut inner.spawned))
        };
        drop(rest);
    }

    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    /// A number below `n`.
    pub(crate) fn draw(&self, n: u64) -> u64 {
        let mut inner = self.lock();
        inner.random = inner.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = inner.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    /// Whether something happens that does so in so many of a thousand cases.
    pub(crate) fn chance(&self, in_a_thousand: u64) -> bool {
        self.draw(1000) < in_a_thousand
    }

    /// A time between two, in milliseconds.
    pub(crate) fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_micros(1000 * least + self.draw(1000 * (most - least) + 1))
    }

    /// A new process without tasks.
    pub(crate) fn process(&self) -> Process {
        let mut inner = self.lock();
        inner.processes += 1;
        inner.processes
    }

    pub(crate) fn spawn(&self, process: Process, task: impl Future<Output = ()> + Send + 'static) {
        let mut inner = self.lock();
        inner.tasks += 1;
        let id = inner.tasks;
        inner.spawned.push((id, process, task.boxed()));
        inner.ready.insert(id);
    }

    /// Ends a process where it stands.
    pub(crate) fn kill(&self, process: Process) {
        self.lock().dying.push(process);
    }

    /// Stops a process for a time; what is said to it meanwhile waits.
    pub(crate) fn freeze(&self, process: Process, time: Duration) {
        self.lock().frozen.insert(process);
        let sim = self.clone();
        self.call(time, move || sim.thaw(process));
    }

    pub(crate) fn thaw(&self, process: Process) {
        self.lock().frozen.remove(&process);
    }

    /// Does something later, whoever lives then.
    pub(crate) fn call(&self, after: Duration, what: impl FnOnce() + Send + 'static) {
        self.timer(self.now() + after, Timer::Call(Box::new(what)));
    }

    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        Sleep { sim: self.clone(), until: self.now() + time, waits: false }
    }

    fn timer(&self, at: Duration, timer: Timer) {
        let mut inner = self.lock();
        inner.tasks += 1;
        let id = inner.tasks;
        inner.timers.insert((at, id), timer);
    }

    /// Something must not be: the simulation ends here.
    pub(crate) fn violated(&self, what: String) {
        self.log(|| format!("VIOLATION {what}"));
        self.lock().violation.get_or_insert(what);
    }

    /// A line of the trace.
    pub(crate) fn log(&self, line: impl FnOnce() -> String) {
        let mut inner = self.lock();
        let now = inner.now;
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("{:>10.3} {}", now.as_secs_f64(), line()));
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    /// Runs until `done` says so, or `limit` is reached.
    ///
    /// # Errors
    /// What must not be.
    pub(crate) fn run(&self, limit: Duration, done: impl Fn() -> bool) -> Result<(), String> {
        let mut tasks: BTreeMap<u64, (Process, BoxFuture<'static, ()>)> = BTreeMap::new();
        loop {
            if let Some(violation) = self.lock().violation.take() {
                return Err(violation);
            }
            if done() {
                return Ok(());
            }
            self.turn_over(&mut tasks);
            if let Some(task) = self.next(&tasks) {
                let waker = Waker::from(Arc::new(TaskWaker { task, sim: self.clone() }));
                let Some((_, future)) = tasks.get_mut(&task) else { continue };
                if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    tasks.remove(&task);
                }
            } else if !self.pass_time() || self.now() > limit {
                return Err(format!("not everything has ended after {:?}", self.now()));
            }
        }
    }

    /// Takes in new tasks and buries dead processes.
    fn turn_over(&self, tasks: &mut BTreeMap<u64, (Process, BoxFuture<'static, ()>)>) {
        let (spawned, dying) = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.spawned), std::mem::take(&mut inner.dying))
        };
        tasks.extend(spawned.into_iter().map(|(id, process, task)| (id, (process, task))));
        if !dying.is_empty() {
            // What tasks hold may do something when it is dropped: not under the lock.
            tasks.retain(|_, (process, _)| !dying.contains(process));
        }
    }

    fn next(&self, tasks: &BTreeMap<u64, (Process, BoxFuture<'static, ()>)>) -> Option<u64> {
        let runnable: Vec<u64> = {
            let mut inner = self.lock();
            let inner = &mut *inner;
            inner.ready.retain(|id| tasks.contains_key(id));
            let awake = |id: &&u64| tasks.get(id).is_some_and(|(process, _)| !inner.frozen.contains(process));
            inner.ready.iter().filter(awake).copied().collect()
        };
        let chosen = match runnable.len() {
            0 => return None,
            1 => runnable[0],
            n => runnable[self.draw(n as u64) as usize],
        };
        self.lock().ready.remove(&chosen);
        Some(chosen)
    }

    /// Goes on to the next timer. Says whether there was one.
    fn pass_time(&self) -> bool {
        let first = {
            let mut inner = self.lock();
            let first = inner.timers.pop_first();
            if let Some(((at, _), _)) = &first {
                inner.now = inner.now.max(*at);
            }
            first
        };
        match first {
            Some((_, Timer::Wake(waker))) => waker.wake(),
            Some((_, Timer::Call(call))) => call(),
            None => return false,
        }
        true
    }
}

/// Waits for a time to come.
pub(crate) struct Sleep {
    sim: Sim,
    until: Duration,
    waits: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.sim.now() >= self.until {
            return Poll::Ready(());
        }
        if !self.waits {
            self.waits = true;
            self.sim.timer(self.until, Timer::Wake(cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim")
    }
}

impl data::store::Clock for Sim {
    fn now(&self) -> Duration {
        Self::now(self)
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        Self::sleep(self, pause).boxed()
    }
}
