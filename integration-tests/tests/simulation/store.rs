//! An object store in memory behind a bad line: answers are lost, late or wrong, and a request that was sent is carried out
//! though nobody may wait for it any more.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::executor::Sim;
use crate::invariants::Ledger;
use crate::world::Broken;

/// How bad the line is: in how many of a thousand cases something happens to a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    /// It is carried out, and the answer is lost.
    pub(crate) lost: u64,
    /// It is carried out late, and its caller has been told before that it failed.
    pub(crate) late: u64,
    /// A create is carried out, its answer lost, and the client's own second try says that the object exists.
    pub(crate) echoed: u64,
    /// A create is not carried out, and the store says that the object exists.
    pub(crate) conflict: u64,
    /// The store says that it is busy.
    pub(crate) busy: u64,
    /// It takes long.
    pub(crate) slow: u64,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Lost,
    Late,
    Echoed,
    Conflict,
    Busy,
}

/// The store; cheap to clone.
#[derive(Clone)]
pub(crate) struct BadStore {
    sim: Sim,
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
    ledger: Ledger,
    broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    line: Line,
    away_until: Duration,
}

impl BadStore {
    pub(crate) fn new(sim: &Sim, objects: Arc<InMemory>, ledger: Ledger, line: Line, broken: Option<Broken>) -> Self {
        let state = Arc::new(Mutex::new(State { line, away_until: Duration::ZERO }));
        Self { sim: sim.clone(), objects, state, ledger, broken }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    /// No call gets through for a time.
    pub(crate) fn goes_away(&self, time: Duration) {
        self.state().away_until = self.sim.now() + time;
    }

    /// Nothing bad happens from now on.
    pub(crate) fn heal(&self) {
        *self.state() = State::default();
    }

    fn fate(&self, creates: bool) -> Fate {
        let State { line, away_until } = *self.state();
        if away_until > self.sim.now() {
            return Fate::Busy;
        }
        let mut drawn = self.sim.draw(1000);
        let of_creates = |n: u64| if creates { n } else { 0 };
        let fates = [
            (line.lost, Fate::Lost),
            (line.late, Fate::Late),
            (line.busy, Fate::Busy),
            (of_creates(line.echoed), Fate::Echoed),
            (of_creates(line.conflict), Fate::Conflict),
        ];
        for (share, fate) in fates {
            if drawn < share {
                return fate;
            }
            drawn -= share;
        }
        Fate::Fine
    }

    /// Sends a call on its way and waits for the answer.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        creates: bool,
        apply: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (fate, path) = (self.fate(creates), path.to_owned());
        let slow = self.state().line.slow;
        let travel = || if self.sim.chance(slow) { self.sim.between(0, 3000) } else { self.sim.between(1, 30) };
        let (there, back) = (travel(), travel());
        if fate != Fate::Fine {
            self.sim.log(|| format!("store: {what} {path}: {fate:?}"));
        }
        match fate {
            Fate::Busy => {
                self.sim.sleep(there + back).await;
                return Err(generic("Server returned non-2xx status code: 503 Slow Down".into()));
            }
            Fate::Conflict => {
                self.sim.sleep(there + back).await;
                return Err(exists(&path));
            }
            Fate::Late => {
                let store = self.clone();
                self.sim.call(there + back + self.sim.between(0, 9000), move || drop(apply(&store)));
                self.sim.sleep(there + back).await;
                return Err(generic(Box::new(io::Error::from(io::ErrorKind::TimedOut))));
            }
            Fate::Fine | Fate::Lost | Fate::Echoed => {}
        }
        let (answer, answered) = oneshot::channel();
        let store = self.clone();
        self.sim.call(there, move || drop(answer.send(apply(&store))));
        let outcome = answered.await.map_err(|_| generic("no answer".into()))?;
        self.sim.sleep(back).await;
        match fate {
            Fate::Lost => Err(generic(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)))),
            Fate::Echoed if outcome.is_ok() => Err(exists(&path)),
            _ => outcome,
        }
    }
}

/// The outcome of something that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory answers at once")
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: "BadStore", source }
}

fn exists(path: &str) -> Error {
    Error::AlreadyExists { path: path.to_owned(), source: "409 Conflict".into() }
}

impl fmt::Debug for BadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BadStore")
    }
}

impl fmt::Display for BadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BadStore")
    }
}

#[async_trait]
impl ObjectStore for BadStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (creates, path) = (opts.mode == PutMode::Create, location.clone());
        let put = self.call("put", location.as_ref(), creates, move |store| {
            let bytes = payload.clone();
            let done = now(store.objects.put_opts(&path, payload, opts));
            if done.is_ok() {
                store.sim.log(|| format!("store: wrote {path}"));
                store.ledger.wrote(&store.sim, &store.objects, path.as_ref(), creates, &bytes.into());
            }
            done
        });
        match put.await {
            // As if the client did not read back what it is told exists.
            Err(Error::AlreadyExists { .. }) if self.broken == Some(Broken::ExistsBelieved) => {
                Ok(PutResult { e_tag: None, version: None })
            }
            outcome => outcome,
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put_multipart".into(), implementer: "BadStore".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.clone();
        self.call("get", location.as_ref(), false, move |store| {
            let GetResult { payload, meta, range, attributes, .. } = now(store.objects.get_opts(&path, options))?;
            let GetResultPayload::Stream(bytes) = payload else { return Err(generic("not in memory".into())) };
            Ok(GetResult { payload: GetResultPayload::Stream(bytes), meta, range, attributes })
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let path = location?;
                let name = path.clone();
                store
                    .call("delete", name.as_ref(), false, move |store| {
                        store.ledger.removed(&store.sim, path.as_ref());
                        now(store.objects.delete(&path)).map(|()| path)
                    })
                    .await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            let folder = prefix.clone();
            let listed = store.call("list", prefix.as_ref().map_or("", |p| p.as_ref()), false, move |store| {
                now(store.objects.list(folder.as_ref()).try_collect::<Vec<ObjectMeta>>())
            });
            match listed.await {
                Ok(metas) => stream::iter(metas.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(e) => stream::iter(vec![Err(e)]),
            }
        };
        stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "list_with_delimiter".into(), implementer: "BadStore".into() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "BadStore".into() })
    }
}
