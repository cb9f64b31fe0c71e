//! A whole job whose tensors lie in the memory of a card that the CPU plays: what the stages do there is what they do on a
//! card, but for its speed.

use coordinator::Options;
use data::job::{Split, Stage};
use data::tables::{CandidateRow, MetricRow, RankingRow};
use kernels::Device;
use mllm4rec_integration_tests::in_process::InProcess;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use proto::JobState;

/// Little work, for it is slow.
const SETS: [&str; 4] = ["retriever.max_epochs=2", "ranker.max_steps=2", "ranker.validate_every=2", "ranker.history=1"];
const TEST: Option<Split> = Some(Split::Test);

#[test]
fn a_job_on_an_emulated_card_ends_as_on_the_cpu() {
    let workshop = Workshop::open();
    let sets: Vec<&str> = SETS.iter().flat_map(|set| ["--set", set]).collect();
    let wanted = workshop.finish("cpu", &sets);
    let found = run_emulated(&workshop, "emulated", "f32");

    for split in [Split::Validation, Split::Test] {
        let [wanted, found] = [&wanted, &found].map(|job| job.rows::<CandidateRow>(Stage::Retrieve, Some(split)));
        assert_eq!(wanted.len(), found.len());
        let pairs = || wanted.iter().zip(&found).flat_map(|(w, f)| w.items.iter().zip(&f.items));
        let same = pairs().filter(|(wanted, found)| wanted == found).count();
        assert!(same * 50 >= pairs().count() * 49, "{same} of {} candidates in their places", pairs().count());
    }
    let [wanted_rows, found_rows] = [&wanted, &found].map(|job| job.rows::<RankingRow>(Stage::Rank, Some(Split::Test)));
    let same: Vec<_> = wanted_rows.iter().zip(&found_rows).filter(|(w, f)| w.items == f.items).collect();
    assert!(same.len() * 10 >= wanted_rows.len() * 8, "{} of {} users alike", same.len(), wanted_rows.len());
    for (wanted, found) in same {
        let apart = wanted.scores.iter().zip(&found.scores).map(|(w, f)| (w - f).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-2, "{}: {apart}", wanted.user_id);
    }
    same_metrics(&wanted, &found, 0.05);

    // What a card does where nobody asks for anything else: the same candidates, in nearly the same order.
    let narrow = run_emulated(&workshop, "emulated", "auto");
    assert_eq!(narrow.artifact(Stage::Retrieve, TEST), found.artifact(Stage::Retrieve, TEST));
    let [wide, rounded] = [&found, &narrow].map(|job| job.rows::<RankingRow>(Stage::Rank, TEST));
    let pairs = || wide.iter().zip(&rounded).flat_map(|(wide, rounded)| wide.scores.iter().zip(&rounded.scores));
    let apart = pairs().map(|(wide, rounded)| (wide - rounded).abs()).fold(0.0, f32::max);
    assert!(0.0 < apart && apart < 0.3, "scores in bfloat16 are {apart} apart");
    same_metrics(&found, &narrow, 0.15);
}

fn same_metrics(wanted: &JobOutputs, found: &JobOutputs, tolerance: f64) {
    let [wanted, found] = [wanted, found].map(|job| job.rows::<MetricRow>(Stage::Evaluate, None));
    assert_eq!(wanted.len(), found.len());
    for (wanted, found) in wanted.iter().zip(&found) {
        assert!((wanted.value - found.value).abs() < tolerance, "{wanted:?} and {found:?}");
    }
}

/// Runs the workshop's job by a coordinator and a worker of this process.
fn run_emulated(workshop: &Workshop, root: &str, precision: &str) -> JobOutputs {
    let cluster = InProcess::start(&workshop.path(root), Options::default());
    let working = cluster.worker("emulated", Device::emulated);
    let precision = format!("ranker.precision={precision}");
    let sets: Vec<&str> = SETS.into_iter().chain([precision.as_str()]).collect();
    let id = cluster.submit(&workshop.parsed(root, &sets));
    let last = cluster.watch(&id, |_| false);
    assert_eq!(last.state, JobState::Succeeded, "{}", last.reason);
    cluster.close([working], &id)
}
