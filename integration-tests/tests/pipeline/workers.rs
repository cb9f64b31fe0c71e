//! One worker or three: the same rows, and exactly one row per user.

use std::collections::BTreeSet;
use std::fmt::Debug;

use data::job::{Split, Stage};
use data::tables::{
    CandidateRow, CaptionRow, HistoryRow, ItemRow, MetricRow, RankingRow, RejectedRow, Row, TargetRankRow,
};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, wait};
use mllm4rec_integration_tests::shop;
use serde_json::Value;

const SPLITS: [Split; 2] = [Split::Validation, Split::Test];

#[test]
fn any_number_of_workers_writes_the_same_rows() {
    let workshop = Workshop::open();
    let one = workshop.finish("one", &["--workers", "1"]);
    let three = workshop.finish("three", &["--workers", "3"]);
    let digests = |job: &JobOutputs| job.stages().iter().map(|s| s.digest.to_string()).collect::<Vec<_>>();
    assert_eq!(digests(&one), digests(&three), "the number of workers is part of a digest");

    same::<ItemRow>(&one, &three, Stage::Prepare, None);
    same::<HistoryRow>(&one, &three, Stage::Prepare, None);
    same::<RejectedRow>(&one, &three, Stage::Prepare, None);
    same::<CaptionRow>(&one, &three, Stage::Caption, None);
    for stage in [Stage::TrainRetriever, Stage::TrainRanker] {
        for file in weights(stage) {
            assert!(one.model(stage, file) == three.model(stage, file), "{stage}: {file} differs");
        }
    }
    same::<CandidateRow>(&one, &three, Stage::Retrieve, Some(Split::Train));
    for split in SPLITS {
        same::<CandidateRow>(&one, &three, Stage::Retrieve, Some(split));
        same::<TargetRankRow>(&one, &three, Stage::Retrieve, Some(split));
        same::<RankingRow>(&one, &three, Stage::Rank, Some(split));
    }
    same::<MetricRow>(&one, &three, Stage::Evaluate, None);

    every_user_has_one_row(&one);
    awkward_rows_are_put_aside(&one);
    rankings_reorder_the_candidates(&one);
}

#[test]
fn models_are_loaded_once_for_all_leases_of_an_artifact() {
    let workshop = Workshop::open();
    let (job, root) = (workshop.job().display().to_string(), workshop.path("root").display().to_string());
    let mut command = workshop.command(&["run", &job, "--root", &root, "--workers", "1", "--log-format", "json"]);
    let child = command.args(["--set", r#"splits=["test"]"#]).env("RUST_LOG", "info").spawn().unwrap();
    let said = String::from_utf8(wait(child).stderr).unwrap();
    let granted: Vec<String> = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "lease granted")
        .map(|line| line["artifact"].as_str().unwrap().to_owned())
        .collect();
    // What opens first is begun first: where something that comes before it opens a moment later, a worker goes there.
    let mut stays = granted.clone();
    stays.dedup();
    for stage in ["retrieve/", "rank/"] {
        let artifacts: BTreeSet<&String> = granted.iter().filter(|artifact| artifact.starts_with(stage)).collect();
        assert!(!artifacts.is_empty(), "{said}");
        for artifact in artifacts {
            let leases = granted.iter().filter(|other| *other == artifact).count();
            assert!(leases > 1, "{artifact}: one lease shows nothing\n{said}");
            let opened = said.matches(&format!("model and tables opened artifact={artifact}")).count();
            let stays = stays.iter().filter(|other| *other == artifact).count();
            assert!(opened == stays && stays < leases, "{artifact}: opened {opened} times for {leases} leases\n{said}");
        }
    }
}

fn weights(stage: Stage) -> &'static [&'static str] {
    if stage == Stage::TrainRetriever { &["model.safetensors"] } else { &["adapter_model.safetensors"] }
}

fn same<R: Row + PartialEq + Debug>(one: &JobOutputs, other: &JobOutputs, stage: Stage, split: Option<Split>) {
    let (left, right): (Vec<R>, Vec<R>) = (one.rows(stage, split), other.rows(stage, split));
    let what = format!("{} of {stage} {split:?}", R::TABLE.name());
    assert!(!left.is_empty(), "{what}: no rows");
    assert_eq!(left.len(), right.len(), "{what}: number of rows");
    for (left, right) in left.iter().zip(&right) {
        assert_eq!(left, right, "{what}");
    }
}

fn every_user_has_one_row(job: &JobOutputs) {
    let histories: Vec<HistoryRow> = job.rows(Stage::Prepare, None);
    let users: Vec<&str> = histories.iter().map(|h| h.user_id.as_str()).collect();
    assert_eq!(users.len(), shop::USERS);
    assert!(users.windows(2).all(|pair| pair[0] < pair[1]), "users are not in byte order");
    assert!(!users.contains(&shop::SHORT_USER));
    let items: Vec<ItemRow> = job.rows(Stage::Prepare, None);
    let captions: Vec<CaptionRow> = job.rows(Stage::Caption, None);
    assert_eq!(items.len(), shop::ITEMS);
    assert!(items.iter().map(|i| &i.item_id).eq(captions.iter().map(|c| &c.item_id)));
    for split in SPLITS {
        let candidates: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(split));
        let ranks: Vec<TargetRankRow> = job.rows(Stage::Retrieve, Some(split));
        let rankings: Vec<RankingRow> = job.rows(Stage::Rank, Some(split));
        assert!(candidates.iter().map(|r| r.user_id.as_str()).eq(users.iter().copied()), "candidates of {split}");
        assert!(ranks.iter().map(|r| r.user_id.as_str()).eq(users.iter().copied()), "target ranks of {split}");
        assert!(rankings.iter().map(|r| r.user_id.as_str()).eq(users.iter().copied()), "rankings of {split}");
    }
}

fn awkward_rows_are_put_aside(job: &JobOutputs) {
    let rejected: Vec<RejectedRow> = job.rows(Stage::Prepare, None);
    let places: Vec<(&str, u64)> = rejected.iter().map(|r| (r.file.as_str(), r.line.unwrap())).collect();
    assert_eq!(places, shop::REJECTED);
}

/// A ranking holds the candidates, and the place that each of them had.
fn rankings_reorder_the_candidates(job: &JobOutputs) {
    let candidates: Vec<CandidateRow> = job.rows(Stage::Retrieve, Some(Split::Test));
    let rankings: Vec<RankingRow> = job.rows(Stage::Rank, Some(Split::Test));
    for (candidates, ranking) in candidates.iter().zip(&rankings) {
        assert_eq!(candidates.items.len(), 8);
        for (item, place) in ranking.items.iter().zip(&ranking.retriever_ranks) {
            assert_eq!(item, &candidates.items[*place as usize - 1], "user {}", ranking.user_id);
        }
        assert!(ranking.scores.windows(2).all(|pair| pair[0] >= pair[1]), "user {}", ranking.user_id);
        let sum: f32 = ranking.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-4, "user {}: probabilities add up to {sum}", ranking.user_id);
    }
}
