//! Whether somebody else may have done a shard of a lease: only then is it looked up before it is computed.
//!
//! A coordinator grants what it takes for undone, and hears of every commit, so one look for each lease is enough: a shard that
//! lost its worker, perhaps right behind the commit, and one that two are to try both travel alone. More looks are due once
//! there is a sign that others have a hand in the lease. Without any look nothing would be wrong but lost time: the first
//! commit counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::DUPLICATE_AFTER;

/// A lease that commits nothing for longer may share its last shards with an idle worker from then on. It is half of what
/// coordinators wait: their clock begins when they hear of a commit.
const UNDISTURBED: Duration = Duration::from_millis(DUPLICATE_AFTER.as_millis() as u64 / 2);

/// The doubt about a lease, shared by its desk and its task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// From now on every shard is looked up: the coordinator may take the lease for lost, or another attempt was met.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The looks of one lease.
#[derive(Debug)]
pub(crate) struct Looks {
    raised: Doubt,
    first: bool,
}

impl Looks {
    pub(crate) fn new(raised: Doubt) -> Self {
        Self { raised, first: true }
    }

    /// Whether to look up a shard before it is computed.
    pub(crate) fn due(&mut self) -> bool {
        std::mem::take(&mut self.first) || self.raised.0.load(Ordering::Relaxed)
    }

    /// Another attempt at a shard of this lease was met.
    pub(crate) fn met_another(&self) {
        self.raised.raise();
    }

    /// A shard was committed so long after the one before, or after the grant.
    pub(crate) fn committed_after(&self, took: Duration) {
        if took >= UNDISTURBED {
            self.raised.raise();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use data::artifact::{self, ArtifactId, Attempt, Plan, Spec};
    use data::job::{Split, Stage};
    use data::store::Store;
    use proto::{Grant, JobId, LeaseId};
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::context::{Context, Means, Signs};
    use crate::decoders::DecoderCommand;
    use crate::gang::{Reach, Seat};
    use crate::kept::KnownPlan;

    pub(crate) const JOB: &str = r#"
        schema_version = 1
        name = "shop"
        [dataset]
        format = "table"
        path = "/data"
        [ranker]
        base = "/base"
    "#;

    /// Which of the next shards are looked up.
    fn next(looks: &mut Looks) -> [bool; 3] {
        std::array::from_fn(|_| looks.due())
    }

    #[test]
    fn an_undisturbed_lease_looks_once() {
        let mut looks = Looks::new(Doubt::default());
        assert_eq!(next(&mut looks), [true, false, false]);
        looks.committed_after(Duration::from_millis(4900));
        assert_eq!(next(&mut looks), [false; 3]);
    }

    #[test]
    fn every_sign_of_others_makes_it_look_to_its_end() {
        let broken: fn(&Looks, &Doubt) = |_, session| session.raise();
        let met: fn(&Looks, &Doubt) = |looks, _| looks.met_another();
        let slow: fn(&Looks, &Doubt) = |looks, _| looks.committed_after(UNDISTURBED);
        for sign in [broken, met, slow] {
            let session = Doubt::default();
            let mut looks = Looks::new(session.clone());
            assert_eq!(next(&mut looks), [true, false, false]);
            sign(&looks, &session);
            assert_eq!(next(&mut looks), [true; 3]);
        }
    }

    /// A lease over three shards of which another worker has done the last two, without a word.
    async fn context(folder: &std::path::Path, doubt: Doubt) -> Context {
        let store = Store::open(&folder.display().to_string()).unwrap();
        let (config, inputs) = (serde_json::json!({}), BTreeMap::new());
        let spec = Spec { stage: Stage::Rank, split: Some(Split::Test), format_version: 1, config, inputs };
        let id = artifact::write_spec(&store, &spec).await.unwrap();
        let plan = Plan { shards: 3, input_parts: Vec::new(), outputs: Vec::new() };
        artifact::write_plan(&store, &id, &plan).await.unwrap();
        for shard in [1, 2] {
            let attempt = Attempt { shard, id: "other".into(), ..Attempt::default() };
            artifact::commit_shard(&store, &id, &plan, attempt).await.unwrap();
        }
        lease_of(store, &id, JOB, doubt).await
    }

    /// A lease of three shards of a ranking, with a local store as its spool.
    pub(crate) async fn lease_of(store: Store, id: &ArtifactId, job: &str, doubt: Doubt) -> Context {
        let grant = Grant {
            lease: LeaseId(1),
            job: JobId("shop-1".to_owned()),
            job_toml: job.to_owned(),
            stage: "rank".to_owned(),
            split: Some("test".to_owned()),
            digest: id.digest.to_string(),
            shards: vec![0, 1, 2],
            of: 3,
        };
        let decoder = DecoderCommand { program: "none".into(), args: Vec::new() };
        let spool = store.folder().unwrap().to_owned();
        let reach = Reach { coordinator: "127.0.0.1:1".to_owned(), told: None };
        let (plan, step_patience) = (KnownPlan::default(), Duration::ZERO);
        let means = Means { store, spool, decoder, threads: 1, plan, reach, step_patience };
        let (to_coordinator, _) = mpsc::channel(8);
        let seat = Arc::new(Seat::new(step_patience));
        let signs = Signs { stop: CancellationToken::new(), doubt, seat };
        Context::open(&grant, means, signs, to_coordinator).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn shards_are_looked_up_at_the_beginning_and_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let doubt = Doubt::default();
        let mut cx = context(folder.path(), doubt.clone()).await;
        tokio::task::spawn_blocking(move || {
            assert!(!cx.is_done(0).unwrap(), "it is looked up, and not done");
            assert!(!cx.is_done(1).unwrap(), "nothing is read without a reason");
            doubt.raise();
            assert!(cx.is_done(1).unwrap() && cx.is_done(2).unwrap());
        })
        .await
        .unwrap();
        // Whoever finds one done looks at the others.
        let folder = tempfile::tempdir().unwrap();
        let mut cx = context(folder.path(), Doubt::default()).await;
        let found = tokio::task::spawn_blocking(move || [2, 1, 0].map(|shard| cx.is_done(shard).unwrap()));
        assert_eq!(found.await.unwrap(), [true, true, false]);
    }
}
