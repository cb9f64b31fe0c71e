#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use data::artifact::{self, ArtifactId, Plan, Spec};
use data::store::Store;
use proto::{FromWorker, Generation, Grant, JobId, LeaseId, Peer, Ready};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use data::job::Stage;
use kernels::Tensor;
use kernels::collective::{Bucket, Tree};

use super::*;
use crate::context::{Means, Output, Signs};
use crate::decoders::DecoderCommand;
use crate::doubt::Doubt;
use crate::doubt::tests::JOB;
use crate::gang::{Reach, Seat};
use crate::kept::KnownPlan;

const STEPS: u64 = 40;
const SLICES: usize = 5;
const RULES: Rules = Rules {
    stage: Stage::TrainRetriever,
    steps: STEPS,
    validate_every: 7,
    patience: 100,
    metric: "R@10",
    learning_rate: ("retriever.learning_rate", 0.1),
};

/// What happens at a step.
type Happening = Arc<dyn Fn(u64) + Send + Sync>;

/// Follows a target that moves: what it learns depends on every step and on the order of sums.
struct Follower {
    weights: Tensor,
    step: u64,
    kept: Vec<u8>,
    /// Something happens at this step of this member.
    at: Option<(u64, Happening)>,
    loaded: &'static str,
    /// Steps whose gradients are no numbers, and how often.
    broken: (u64, u32),
    /// From this step on no gradients are numbers.
    broken_from: Option<u64>,
    /// A step of which one slice has no numbers.
    broken_slice: Option<(u64, usize)>,
}

impl Follower {
    fn new() -> Self {
        let weights = Tensor::from_f32(&[33], (0..33).map(|i| i as f32 / 7.0).collect()).unwrap();
        Self {
            weights,
            step: 0,
            kept: Vec::new(),
            at: None,
            loaded: "the same",
            broken: (0, 0),
            broken_from: None,
            broken_slice: None,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.weights.f32().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

impl Sliced for Follower {
    fn begin(&mut self, step: u64) -> Result<usize> {
        self.step = step;
        if let Some((_, what)) = self.at.take_if(|(at, _)| *at <= step) {
            what(step);
        }
        Ok(SLICES)
    }

    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)> {
        let target = |i: usize| ((self.step as usize * 13 + slice * 7 + i * 3) % 17) as f32 / 3.0;
        let weights = self.weights.f32().unwrap();
        let mut gradients: Vec<f32> = weights.iter().enumerate().map(|(i, w)| (w - target(i)) / 9.0).collect();
        let loss = gradients.iter().map(|g| f64::from(*g).powi(2)).sum();
        if self.broken.0 == self.step && self.broken.1 > 0 {
            self.broken.1 -= 1;
            gradients[3] = f32::NAN;
        }
        if self.broken_from.is_some_and(|from| self.step >= from) || self.broken_slice == Some((self.step, slice)) {
            gradients[3] = f32::NAN;
        }
        Ok((Bucket::new(vec![Tensor::from_f32(&[33], gradients)?])?, loss))
    }
}

impl Trainee for Follower {
    fn learn(&mut self, gang: &mut dyn Collective, step: u64, beat: &dyn Fn()) -> Result<(Tree, Word)> {
        slices(self, gang, step, beat)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.weights]
    }

    fn apply(&mut self, _: &mut dyn Collective, total: Bucket) -> Result<()> {
        let total = total.into_tensors().remove(0);
        for (w, g) in self.weights.f32_mut()?.iter_mut().zip(total.f32()?) {
            *w -= 0.1 * g;
        }
        Ok(())
    }

    fn chunks(&self) -> usize {
        3
    }

    fn validate(&mut self, cx: &Context, chunk: usize) -> Result<f64> {
        cx.check()?;
        Ok(self.weights.f32()?.iter().skip(chunk).step_by(3).map(|w| f64::from(*w).sin()).sum())
    }

    fn figure(&self, sums: &[f64]) -> Option<f64> {
        Some(sums.iter().sum())
    }

    fn keep(&mut self) -> Result<()> {
        self.kept = self.bytes();
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("weights".to_owned(), self.bytes()), ("kept".to_owned(), self.kept.clone())])
    }

    fn restore(&mut self, from: &Snapshot) -> Result<()> {
        let weights = from.file("weights")?.chunks_exact(4);
        let weights = weights.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        self.weights = Tensor::from_f32(&[33], weights)?;
        self.kept = from.file("kept")?.to_vec();
        Ok(())
    }

    fn loaded(&self) -> Result<Digest> {
        Ok(Digest::of_bytes(self.loaded.as_bytes()))
    }

    fn about(&self, step: u64) -> String {
        format!("step {step}")
    }

    fn output(&mut self, course: &Course, _: &dyn Fn()) -> Result<Output> {
        let mut output = Output::default();
        output.file("kept", self.kept.clone());
        course.describe("best", &mut output.stats);
        Ok(output)
    }
}

/// A member on its way, from the coordinator's side.
struct Member {
    lease: u64,
    seat: Arc<Seat>,
    stop: CancellationToken,
    words: mpsc::Receiver<FromWorker>,
    ended: Option<tokio::task::JoinHandle<Result<()>>>,
    /// What it said last, while it waits.
    ready: Option<Ready>,
}

/// Members of one training and somebody who calls them together as a coordinator would.
struct Site {
    store: Store,
    id: ArtifactId,
    members: Vec<Member>,
    leases: u64,
    generations: u64,
    inside: Vec<u64>,
    broken: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let (stage, config) = (Stage::TrainRetriever, serde_json::json!({}));
        let spec = Spec { stage, split: None, format_version: 1, config, inputs: BTreeMap::new() };
        let id = artifact::write_spec(&store, &spec).await.unwrap();
        let plan = Plan { shards: 1, input_parts: Vec::new(), outputs: Vec::new() };
        artifact::write_plan(&store, &id, &plan).await.unwrap();
        let (members, inside, broken) = (Vec::new(), Vec::new(), Vec::new());
        Self { store, id, members, leases: 0, generations: 0, inside, broken, _folder: folder }
    }

    async fn join(&mut self, mut trainee: Follower) -> u64 {
        self.leases += 1;
        let lease = self.leases;
        let grant = Grant {
            lease: LeaseId(lease),
            job: JobId("shop-1".to_owned()),
            job_toml: JOB.to_owned(),
            stage: self.id.stage.to_string(),
            split: None,
            digest: self.id.digest.to_string(),
            shards: vec![0],
            of: 1,
        };
        let decoder = DecoderCommand { program: "none".into(), args: Vec::new() };
        let (store, spool) = (self.store.clone(), self.store.folder().unwrap().to_owned());
        let reach = Reach { coordinator: "127.0.0.1:1".to_owned(), told: None };
        let (plan, step_patience) = (KnownPlan::default(), Duration::ZERO);
        let means = Means { store, spool, decoder, threads: 1, plan, reach, step_patience };
        let (seat, stop) = (Arc::new(Seat::new(step_patience)), CancellationToken::new());
        let signs = Signs { stop: stop.clone(), doubt: Doubt::default(), seat: seat.clone() };
        let (to_coordinator, words) = mpsc::channel(64);
        let mut cx = Context::open(&grant, means, signs, to_coordinator).await.unwrap();
        let ended = tokio::task::spawn_blocking(move || train(&mut cx, &Device::cpu(1).unwrap(), &RULES, &mut trainee));
        self.members.push(Member { lease, seat, stop, words, ended: Some(ended), ready: None });
        lease
    }

    fn member(&mut self, lease: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.lease == lease).unwrap()
    }

    /// Takes in what members say, and calls those together who wait once `least` do and nobody else is on his way. Members that end are
    /// put down with their outcome. Returns when all have ended.
    async fn run(&mut self, least: usize) -> BTreeMap<u64, Result<()>> {
        let mut outcomes = BTreeMap::new();
        while !self.members.is_empty() {
            self.listen();
            self.bury(&mut outcomes).await;
            self.meet(least);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        outcomes
    }

    fn listen(&mut self) {
        let mut lost = None;
        for member in &mut self.members {
            while let Ok(word) = member.words.try_recv() {
                let FromWorker::Ready(ready) = word else { continue };
                if let Some(broken) = &ready.broken {
                    self.broken.push(broken.reason.clone());
                    lost = Some(broken.generation);
                }
                self.inside.retain(|lease| *lease != member.lease);
                member.ready = Some(ready);
            }
        }
        if let Some(generation) = lost {
            self.members.iter().for_each(|member| member.seat.abort(generation, "a member is lost".to_owned()));
        }
    }

    async fn bury(&mut self, outcomes: &mut BTreeMap<u64, Result<()>>) {
        for place in (0..self.members.len()).rev() {
            if self.members[place].ended.as_ref().is_some_and(|task| task.is_finished()) {
                let mut gone = self.members.remove(place);
                let outcome = gone.ended.take().unwrap().await;
                self.inside.retain(|lease| *lease != gone.lease);
                outcomes.insert(gone.lease, outcome.unwrap_or_else(|e| Err(Error::Panicked(e.to_string()))));
            }
        }
    }

    fn meet(&mut self, least: usize) {
        let waiting = self.members.iter().filter(|member| member.ready.is_some()).count();
        if !self.inside.is_empty() {
            if waiting > 0 {
                let number = GenerationId::of(1, self.generations);
                self.members.iter().for_each(|member| member.seat.regroup(number));
            }
            return;
        }
        if waiting < least.min(self.members.len()).max(1) || waiting < self.members.len() {
            return;
        }
        self.generations += 1;
        let number = GenerationId::of(1, self.generations);
        let peers: Vec<Peer> = self.members.iter().map(|member| peer(member.ready.as_ref().unwrap())).collect();
        for (rank, member) in self.members.iter_mut().enumerate() {
            member.ready = None;
            let (lease, rank) = (LeaseId(member.lease), u32::try_from(rank).unwrap());
            member.seat.call(Generation { lease, number, rank, members: peers.clone() });
            self.inside.push(member.lease);
        }
    }

    /// The model that was committed.
    async fn model(&self) -> Vec<u8> {
        let done = artifact::done_record(&self.store, &self.id, 0).await.unwrap().expect("nothing was committed");
        let file = done.files.iter().find(|file| file.path.ends_with("kept")).unwrap();
        self.store.get(&file.path).await.unwrap().to_vec()
    }
}

fn peer(ready: &Ready) -> Peer {
    let (lease, name) = (ready.lease, format!("worker {}", ready.lease.0));
    Peer { lease, name, address: ready.address.clone(), certificate: ready.certificate.clone() }
}

/// The model of one undisturbed worker.
async fn undisturbed() -> Vec<u8> {
    let mut site = Site::open().await;
    site.join(Follower::new()).await;
    assert!(site.run(1).await.into_values().all(|outcome| outcome.is_ok()));
    site.model().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_world_trains_the_same_model() {
    let alone = undisturbed().await;
    for world in [2, 3, 4, 8] {
        let mut site = Site::open().await;
        for _ in 0..world {
            site.join(Follower::new()).await;
        }
        let outcomes = site.run(world).await;
        assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
        assert!(site.model().await == alone, "{world} workers");
        assert_eq!((site.generations, &site.broken), (1, &Vec::new()), "{world} workers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_in_order_breaks_no_generation_and_who_dies_changes_no_bit() {
    let alone = undisturbed().await;
    for (dies, rank) in [(false, 0), (false, 1), (true, 0), (true, 1), (true, 2)] {
        let mut site = Site::open().await;
        for member in 0..3 {
            let mut trainee = Follower::new();
            let leaves = Arc::new(std::sync::OnceLock::<CancellationToken>::new());
            if member == rank {
                let leaves = leaves.clone();
                let what = move |_| if dies { panic!("it dies") } else { leaves.wait().cancel() };
                trainee.at = Some((11, Arc::new(what)));
            }
            let lease = site.join(trainee).await;
            let _ = leaves.set(site.member(lease).stop.clone());
        }
        let mut outcomes = site.run(3).await;
        let gone = outcomes.remove(&(rank + 1)).unwrap().unwrap_err();
        assert_eq!(matches!(gone, Error::Stopped(_)), !dies, "{gone}");
        assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
        assert!(site.model().await == alone, "rank {rank} dies: {dies}");
        assert_eq!((site.generations, site.broken.is_empty()), (2, !dies), "{:?}", site.broken);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_is_brought_up_by_the_others() {
    let alone = undisturbed().await;
    let mut site = Site::open().await;
    let mut first = Follower::new();
    let (held, go) = std::sync::mpsc::channel::<()>();
    let go = std::sync::Mutex::new(go);
    // The others come while it is at step 20.
    first.at = Some((20, Arc::new(move |_| assert!(go.lock().unwrap().recv().is_err()))));
    site.join(first).await;
    let began = async {
        while site.generations == 0 {
            site.listen();
            site.meet(1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    began.await;
    site.join(Follower::new()).await;
    site.join(Follower::new()).await;
    while site.members.iter().filter(|member| member.ready.is_some()).count() < 2 {
        site.listen();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    site.meet(3);
    drop(held);
    let outcomes = site.run(3).await;
    assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
    assert!(site.model().await == alone);
    assert_eq!((site.generations, site.broken.len()), (2, 0), "{:?}", site.broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_loaded_something_else_is_put_out() {
    let alone = undisturbed().await;
    let mut site = Site::open().await;
    site.join(Follower::new()).await;
    site.join(Follower { loaded: "another base", ..Follower::new() }).await;
    let mut outcomes = site.run(2).await;
    let said = outcomes.remove(&2).unwrap().unwrap_err();
    assert!(matches!(&said, Error::PutOut(why) if why.contains("has loaded something else")), "{said}");
    assert!(outcomes.remove(&1).unwrap().is_ok() && site.model().await == alone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gradients_that_are_no_numbers_are_tried_again_and_then_by_others() {
    let alone = undisturbed().await;
    for (times, goes) in [(1, false), (9, true)] {
        let mut site = Site::open().await;
        site.join(Follower::new()).await;
        site.join(Follower { broken: (17, times), ..Follower::new() }).await;
        let mut outcomes = site.run(2).await;
        let second = outcomes.remove(&2).unwrap();
        assert_eq!(second.is_err(), goes, "{second:?}");
        assert!(outcomes.remove(&1).unwrap().is_ok() && site.model().await == alone, "{times} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_without_numbers_for_anybody_is_left_out_and_many_of_them_are_too_many() {
    let alone = undisturbed().await;
    let mut models = Vec::new();
    for members in [1, 2] {
        let mut site = Site::open().await;
        for _ in 0..members {
            site.join(Follower { broken: (17, u32::MAX), ..Follower::new() }).await;
        }
        let outcomes = site.run(members).await;
        assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
        models.push(site.model().await);
    }
    // One slice without numbers, whoever computes it: one member goes, and the others know.
    let mut site = Site::open().await;
    for _ in 0..4 {
        site.join(Follower { broken_slice: Some((17, 3)), ..Follower::new() }).await;
    }
    let outcomes = site.run(4).await;
    assert_eq!(outcomes.values().filter(|outcome| outcome.is_err()).count(), 1, "{outcomes:?}");
    models.push(site.model().await);
    // One step less, and the same for any number of members.
    assert!(models[0] == models[1] && models[0] == models[2] && models[0] != alone);

    let mut site = Site::open().await;
    site.join(Follower { broken_from: Some(17), ..Follower::new() }).await;
    let said = site.run(1).await.remove(&1).unwrap().unwrap_err();
    assert!(matches!(said, Error::Diverged { step: 22, .. }), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_leave_the_last_step_is_in_the_store() {
    let alone = undisturbed().await;
    let mut site = Site::open().await;
    let tokens: Arc<std::sync::Mutex<Vec<CancellationToken>>> = Arc::default();
    for member in 0..3 {
        let mut trainee = Follower::new();
        if member == 1 {
            let tokens = tokens.clone();
            let what = move |_| tokens.lock().unwrap().iter().for_each(CancellationToken::cancel);
            trainee.at = Some((23, Arc::new(what)));
        }
        let lease = site.join(trainee).await;
        let stop = site.member(lease).stop.clone();
        tokens.lock().unwrap().push(stop);
    }
    let outcomes = site.run(3).await;
    assert!(outcomes.values().all(|outcome| matches!(outcome, Err(Error::Stopped(_)))), "{outcomes:?}");
    let mut cold = Follower::new();
    let begun = Arc::new(AtomicU64::new(u64::MAX));
    let seen = begun.clone();
    cold.at = Some((0, Arc::new(move |step| seen.store(step, Ordering::Relaxed))));
    site.join(cold).await;
    assert!(site.run(1).await.into_values().all(|outcome| outcome.is_ok()));
    assert_eq!((site.model().await == alone, begun.load(Ordering::Relaxed)), (true, 24));
}
