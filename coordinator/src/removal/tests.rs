#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use data::artifact::SUCCESS;
use data::store::Entry;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{Mortal, boxed, finished, is_sound, is_whole, plan, submit, work};
use crate::plan::JobPlan;
use crate::{Error, records};

const NOW: Limits = Limits { dry_run: false, in_use: false, older_than: Duration::ZERO };
const DRY: Limits = Limits { dry_run: true, ..NOW };

fn job(dataset: u32, candidates: u32) -> JobPlan {
    plan(dataset, candidates, &BTreeMap::new())
}

async fn everything(store: &data::store::Store) -> Vec<String> {
    store.list("").await.unwrap().into_iter().map(|Entry { path, .. }| path).collect()
}

/// What a root holds when all of its jobs are removed.
fn is_tombstone(path: &str) -> bool {
    path.starts_with("_control/v1/jobs/") && path.ends_with("/removed.json")
}

fn names(freed: &Freed, kind: Kind) -> Vec<&str> {
    freed.removed.iter().filter(|r| r.kind == kind).map(|r| r.name.split('/').next().unwrap()).collect()
}

#[tokio::test]
async fn a_job_goes_with_what_no_other_job_names() {
    let root = Mortal::default();
    let store = root.store("s3://shop");
    let (one, two) = (finished(&store, job(1, 10)).await, finished(&store, job(1, 20)).await);
    let before = everything(&store).await;
    let would = remove_job(&store, &one.id.0, DRY).await.unwrap();
    assert_eq!(everything(&store).await, before, "a dry run changes nothing");

    let freed = remove_job(&store, &one.id.0, NOW).await.unwrap();
    assert_eq!(names(&freed, Kind::Artifact), ["rank", "retrieve"]);
    let kept: Vec<_> = freed.kept.iter().map(|k| (k.name.split('/').next().unwrap(), k.job.as_str())).collect();
    assert_eq!(kept, [("train_retriever", two.id.0.as_str()), ("prepare", two.id.0.as_str())]);
    assert_eq!((would.total(), &would.kept), (freed.total(), &freed.kept), "what was promised is what went");
    assert!(is_whole(&store, &two).await);
    let after = everything(&store).await;
    // The tombstone is new.
    assert_eq!(after.len() as u64, before.len() as u64 - freed.total().0 + 1);
    assert_eq!(records::list(&store).await.unwrap(), std::slice::from_ref(&two.id.0));
    assert!(matches!(records::stages(&store, &one.id.0).await, Err(Error::Removed { .. })));

    let again = remove_job(&store, &one.id.0, NOW).await.unwrap();
    assert_eq!(again.total(), (0, 0), "nothing is left of it");
    remove_job(&store, &two.id.0, NOW).await.unwrap();
    assert!(everything(&store).await.iter().all(|path| is_tombstone(path)), "{:?}", everything(&store).await);
}

#[tokio::test]
async fn objects_go_in_an_order_that_leaves_no_lie() {
    let root = Mortal::default();
    let store = root.store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    root.log();
    remove_job(&store, &one.id.0, NOW).await.unwrap();
    let log = root.log();
    assert_eq!(log[0], format!("+{}", records::tombstone_path(&one.id.0)), "the tombstone comes first");
    let digest = one.stages[2].artifact.digest.as_str();
    let steps: Vec<u8> = log
        .iter()
        .filter(|line| line.contains(digest))
        .map(|line| match line.rsplit('/').next().unwrap() {
            _ if line.starts_with('+') => 0,
            SUCCESS => 1,
            _ if line.contains("/done/") => 2,
            name if name.starts_with("part-") => 3,
            "spec.json" | "plan.json" => 4,
            _ => 5,
        })
        .collect();
    assert!(steps.is_sorted() && steps[0] == 0 && steps.last() == Some(&5), "{log:#?}");
    assert!(log.last().unwrap().ends_with(records::STAGES), "the stages say what else has to go: {log:#?}");
}

#[tokio::test]
async fn a_job_that_is_removed_and_submitted_again_has_another_id() {
    let store = Mortal::default().store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    remove_job(&store, &one.id.0, NOW).await.unwrap();
    let second = finished(&store, job(1, 10)).await;
    assert_eq!(second.id.0, format!("{}.2", one.id));
    assert!(is_whole(&store, &second).await);
    remove_job(&store, &second.id.0, NOW).await.unwrap();
    assert_eq!(finished(&store, job(1, 10)).await.id.0, format!("{}.3", one.id));
}

#[tokio::test]
async fn jobs_that_are_at_work_or_not_there_are_refused() {
    let store = Mortal::default().store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    let folder = records::folder(&one.id.0);
    store.put(&format!("{folder}/submitted/1.json"), "{}".into()).await.unwrap();
    let error = remove_job(&store, &one.id.0, NOW).await.unwrap_err();
    assert!(error.to_string().contains("cancel it or wait"), "{error}");
    assert!(!records::is_removed(&store, &one.id.0).await.unwrap(), "no tombstone for a job at work");
    store.put(&format!("{folder}/ended/1.json"), "{}".into()).await.unwrap();
    remove_job(&store, &one.id.0, NOW).await.unwrap();

    let two = finished(&store, job(2, 10)).await;
    let busy = Limits { in_use: true, ..NOW };
    assert!(matches!(remove_job(&store, &two.id.0, busy).await, Err(Error::Active { .. })));
    let error = remove_job(&store, "nothing", NOW).await.unwrap_err();
    assert!(error.to_string().contains(&format!("there are {}", two.id)), "{error}");
}

/// A job that was submitted while the tombstone of its id was being made.
#[tokio::test]
async fn a_job_at_work_keeps_its_artifacts_even_with_a_tombstone() {
    let root = Mortal::default();
    let store = root.store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    let submitted = format!("{}/submitted/1.json", records::folder(&one.id.0));
    let other = store.clone();
    root.before(0, boxed(async move { other.put(&submitted, "{}".into()).await.unwrap() }));
    assert!(matches!(remove_job(&store, &one.id.0, NOW).await, Err(Error::Active { .. })));
    assert!(is_whole(&store, &one).await);
    assert_eq!(collect(&store, NOW).await.unwrap().removed, []);
    assert!(is_whole(&store, &one).await);
}

#[tokio::test]
async fn what_later_jobs_are_made_from_stays() {
    let store = Mortal::default().store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    let retrieve = &one.stages[2].artifact;
    let since = BTreeMap::from([("since".to_owned(), retrieve.digest.clone())]);
    let two = finished(&store, plan(2, 10, &since)).await;
    let freed = remove_job(&store, &one.id.0, NOW).await.unwrap();
    // Rows of its candidates are copied where the histories and the model are the same.
    assert_eq!(names(&freed, Kind::Artifact), ["rank"]);
    assert!(freed.kept.iter().all(|kept| kept.job == two.id.0) && freed.kept.len() == 3, "{:?}", freed.kept);
    remove_job(&store, &two.id.0, NOW).await.unwrap();
    let freed = collect(&store, NOW).await.unwrap();
    assert_eq!(names(&freed, Kind::Artifact).len(), 3, "nobody names them any more");
    assert!(everything(&store).await.iter().all(|path| is_tombstone(path)));
}

#[tokio::test]
async fn a_crash_at_any_change_is_taken_up_by_rm_or_gc() {
    for by_gc in [false, true] {
        for changes in 0.. {
            let root = Mortal::default();
            let store = root.store("s3://shop");
            let (one, two) = (finished(&store, job(1, 10)).await, finished(&store, job(1, 20)).await);
            root.dies_after(changes);
            let died = remove_job(&store, &one.id.0, NOW).await.is_err();
            root.revive();
            for stage in &one.stages {
                assert!(is_sound(&store, stage).await, "a record without its part after {changes} changes");
            }
            assert!(is_whole(&store, &two).await);
            if by_gc && records::is_removed(&store, &one.id.0).await.unwrap() {
                collect(&store, NOW).await.unwrap();
            } else {
                remove_job(&store, &one.id.0, NOW).await.unwrap();
            }
            assert!(is_whole(&store, &two).await);
            remove_job(&store, &two.id.0, NOW).await.unwrap();
            collect(&store, NOW).await.unwrap();
            let left = everything(&store).await;
            assert!(left.iter().all(|path| is_tombstone(path)), "after {changes} changes: {left:?}");
            if !died {
                assert!(changes > 20, "only {changes} changes");
                break;
            }
        }
    }
}

/// Before every single change of a remover somebody submits a job that needs the same, and asks what is done.
#[tokio::test]
async fn what_a_submission_found_done_is_not_removed_under_it() {
    for before in 0.. {
        let root = Mortal::default();
        let store = root.store("s3://shop");
        let one = finished(&store, job(1, 10)).await;
        let seen: Arc<Mutex<Option<crate::Result<Vec<bool>>>>> = Arc::default();
        let (other, shared) = (store.clone(), seen.clone());
        let submission = async move {
            let outcome = submit(&other, &mut job(1, 20)).await;
            *shared.lock().unwrap() = Some(outcome);
        };
        root.before(before, boxed(submission));
        remove_job(&store, &one.id.0, NOW).await.unwrap();
        if root.still_waits() {
            assert!(before > 20, "only {before} changes");
            return;
        }
        let outcome = seen.lock().unwrap().take().unwrap();
        match outcome {
            Ok(complete) => {
                for (stage, complete) in job(1, 20).stages.iter().zip(complete) {
                    let there = data::artifact::is_complete(&store, &stage.artifact).await.unwrap();
                    assert!(!complete || there, "{} was removed before change {before}", stage.artifact);
                    assert!(is_sound(&store, stage).await);
                }
            }
            Err(Error::BeingRemoved { .. }) => {}
            Err(e) => panic!("{e}"),
        }
        // Whatever it was told: in the end it gets its work done.
        assert!(is_whole(&store, &finished(&store, job(1, 20)).await).await, "before change {before}");
    }
}

/// One remover sleeps while another one ends the work and the artifact is made anew.
#[tokio::test]
async fn a_remover_that_was_overtaken_stops() {
    let root = Mortal::default();
    let store = root.store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    let (other, id) = (store.clone(), one.id.0.clone());
    // Its tombstone is the first change, its first mark the second; the mark stands before the third.
    let overtaking = async move {
        remove_job(&other, &id, NOW).await.unwrap();
        finished(&other, job(1, 10)).await;
    };
    root.before(2, boxed(overtaking));
    remove_job(&store, &one.id.0, NOW).await.unwrap();
    let mut second = job(1, 10);
    assert_eq!(submit(&store, &mut second).await.unwrap().len(), 4);
    for stage in &second.stages {
        assert!(is_sound(&store, stage).await, "{} lost a part", stage.artifact);
    }
}

#[tokio::test]
async fn gc_takes_what_nobody_needs_and_only_when_it_is_old() {
    let store = Mortal::default().store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    let mut torn = job(2, 10);
    submit(&store, &mut torn).await.unwrap();
    work(&store, &torn.stages[0], false).await;
    work(&store, &torn.stages[2], true).await;
    for scratch in ["_control/v1/staging/object-x", "_control/v1/doctor/y/z"] {
        store.put(scratch, "torn".into()).await.unwrap();
    }
    let orphan = job(3, 10);
    work(&store, &orphan.stages[0], false).await;
    let before = everything(&store).await;
    let day = Limits { older_than: Duration::from_secs(24 * 60 * 60), ..NOW };
    assert_eq!(collect(&store, day).await.unwrap().removed, [], "all of it is new");
    let would = collect(&store, DRY).await.unwrap();
    assert_eq!(everything(&store).await, before);

    let freed = collect(&store, NOW).await.unwrap();
    assert_eq!(would.removed, freed.removed, "what was promised is what went");
    assert_eq!(names(&freed, Kind::Artifact), ["prepare"]);
    assert_eq!(names(&freed, Kind::Attempt), ["retrieve"]);
    assert_eq!(freed.removed.iter().find(|r| r.kind == Kind::Attempt).unwrap().objects, 2, "one part of each table");
    assert_eq!(names(&freed, Kind::Checkpoints), ["train_retriever"]);
    assert_eq!(freed.removed.iter().filter(|r| r.kind == Kind::Scratch).count(), 2);
    assert_eq!(collect(&store, NOW).await.unwrap().removed, [], "the second time there is nothing to do");
    assert!(is_whole(&store, &one).await);
    for stage in &torn.stages {
        assert!(is_sound(&store, stage).await);
        work(&store, stage, false).await;
    }
    assert!(is_whole(&store, &torn).await, "what was begun goes on");
}

#[tokio::test]
async fn gc_leaves_what_somebody_works_on() {
    let store = Mortal::default().store("s3://shop");
    let mut torn = job(1, 10);
    submit(&store, &mut torn).await.unwrap();
    work(&store, &torn.stages[0], true).await;
    work(&store, &torn.stages[1], false).await;
    store.put(&format!("{}/submitted/1.json", records::folder(&torn.id.0)), "{}".into()).await.unwrap();
    assert_eq!(collect(&store, NOW).await.unwrap().removed, []);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_everything() {
    let store = Mortal::default().store("s3://shop");
    let one = finished(&store, job(1, 10)).await;
    store.put("_control/v1/jobs/broken/stages.json", "{".into()).await.unwrap();
    let before = everything(&store).await.len();
    for error in [collect(&store, NOW).await.unwrap_err(), remove_job(&store, &one.id.0, NOW).await.unwrap_err()] {
        assert!(error.to_string().contains("jobs/broken/stages.json"), "{error}");
    }
    assert_eq!(everything(&store).await.len(), before);
}

#[derive(Clone, Debug)]
enum Deed {
    Finish(u32, u32),
    /// Begins a job and, where anything is left to do, leaves a part without a record.
    Tear(u32, u32),
    Remove(u32, u32, Option<usize>),
    Collect(Option<usize>),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let crash = || proptest::option::of(0..40_usize);
    let deed = prop_oneof![
        3 => (0..2_u32, 0..3_u32).prop_map(|(d, c)| Deed::Finish(d, c)),
        1 => (0..2_u32, 0..3_u32).prop_map(|(d, c)| Deed::Tear(d, c)),
        3 => (0..2_u32, 0..3_u32, crash()).prop_map(|(d, c, n)| Deed::Remove(d, c, n)),
        1 => crash().prop_map(Deed::Collect),
    ];
    proptest::collection::vec(deed, 1..16)
}

/// The jobs as they should be: the newest life of each, and whether it is finished.
type Expected = BTreeMap<(u32, u32), (JobPlan, bool)>;

async fn begin(store: &data::store::Store, mut plan: JobPlan) -> JobPlan {
    if let Err(e) = submit(store, &mut plan).await {
        assert!(matches!(e, Error::BeingRemoved { .. }), "{e}");
        collect(store, NOW).await.unwrap();
        submit(store, &mut plan).await.unwrap();
    }
    plan
}

async fn perform(root: &Mortal, expected: &mut Expected, deed: &Deed) {
    let store = root.store("s3://shop");
    match deed {
        Deed::Finish(dataset, candidates) => {
            let plan = begin(&store, job(*dataset, *candidates)).await;
            let plan = JobPlan { id: plan.id, ..finished(&store, job(*dataset, *candidates)).await };
            expected.insert((*dataset, *candidates), (plan, true));
        }
        Deed::Tear(dataset, candidates) => {
            let plan = begin(&store, job(*dataset, *candidates)).await;
            // What a removal that died has left may be all that this one needs.
            let is_finished = is_whole(&store, &plan).await;
            if !is_finished {
                work(&store, &plan.stages[3], true).await;
            }
            expected.insert((*dataset, *candidates), (plan, is_finished));
        }
        Deed::Remove(dataset, candidates, crash) => {
            let Some((plan, _)) = expected.get(&(*dataset, *candidates)) else { return };
            crash.iter().for_each(|changes| root.dies_after(*changes));
            let _ = remove_job(&store, &plan.id.0, NOW).await;
            root.revive();
            if records::is_removed(&store, &plan.id.0).await.unwrap() {
                expected.remove(&(*dataset, *candidates));
            }
        }
        Deed::Collect(crash) => {
            crash.iter().for_each(|changes| root.dies_after(*changes));
            let _ = collect(&store, NOW).await;
            root.revive();
        }
    }
}

async fn live(deeds: Vec<Deed>) {
    let (root, mut expected) = (Mortal::default(), Expected::new());
    let store = root.store("s3://shop");
    for deed in &deeds {
        perform(&root, &mut expected, deed).await;
        for (plan, is_finished) in expected.values() {
            assert!(!is_finished || is_whole(&store, plan).await, "{} is not whole after {deed:?}", plan.id);
            for stage in &plan.stages {
                assert!(is_sound(&store, stage).await, "{} lies after {deed:?}", stage.artifact);
            }
        }
    }
    collect(&store, NOW).await.unwrap();
    let rest = everything(&store).await;
    assert_eq!(collect(&store, NOW).await.unwrap().removed, [], "gc finds something the second time");
    assert_eq!(everything(&store).await, rest);
    for (plan, _) in expected.values() {
        remove_job(&store, &plan.id.0, NOW).await.unwrap();
    }
    collect(&store, NOW).await.unwrap();
    assert!(everything(&store).await.iter().all(|path| is_tombstone(path)), "{:?}", everything(&store).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn jobs_that_nobody_removed_keep_all_they_have(deeds in deeds()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live(deeds));
    }
}
