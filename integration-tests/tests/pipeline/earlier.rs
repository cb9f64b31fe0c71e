//! Models and captions of an earlier job: another population is scored with them, and nothing is trained.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use data::job::{Split, Stage};
use data::tables::{CandidateRow, CaptionRow, CaptionStatus, HistoryRow, ItemRow, RankingRow, RejectedRow};
use mllm4rec_integration_tests::base;
use mllm4rec_integration_tests::log::Log;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use serde_json::Value;

const ALL: Option<Split> = Some(Split::All);
/// Items that the training has never seen, and one that has left the shop.
const NEW_ITEMS: [u32; 2] = [901, 902];
const GONE: u32 = 30;

/// Runs a job and gives its id, what it said, and what it wrote.
pub(super) fn finish(workshop: &Workshop, job: &str, root: &str, sets: &[&str]) -> (String, Value, JobOutputs) {
    let folder = workshop.path(root).display().to_string();
    let mut args = vec!["run", job, "--root", &folder, "--json"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    let ended = workshop.call(&args).succeeded();
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let id = said["job"].as_str().unwrap().to_owned();
    let outputs = JobOutputs::open(&workshop.path(root), &id);
    (id, said, outputs)
}

/// Trains both models on the shop, with captions of a table.
pub(super) fn train(workshop: &Workshop, root: &str) -> (String, Value, JobOutputs) {
    let mut captions = "item_id,caption\n".to_owned();
    for item in (1..=60).step_by(2) {
        captions.push_str(&format!("{item},a poster with number {item}\n"));
    }
    std::fs::write(workshop.path("captions.csv"), captions).unwrap();
    let table = format!("captions.table={}", workshop.path("captions.csv").display());
    let job = workshop.job().display().to_string();
    finish(workshop, &job, root, &["captions.from=table", &table, r#"splits=["test","all"]"#])
}

/// The job that scores everybody with the models of an earlier one.
pub(super) fn nightly(workshop: &Workshop, data: &str, settings: &str, model: &str) -> String {
    let text = format!(
        "schema_version = 1\nname = \"night\"\nsplits = [\"all\"]\n{settings}\n[dataset]\nformat = \"movielens\"\npath = {:?}\n\
         min_interactions_per_user = 1\nmin_interactions_per_item = 2\nshard_users = 16\n{model}\n",
        workshop.path(data)
    );
    let path = workshop.path("night.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Everything from one earlier job.
pub(super) fn models_of(job: &str) -> String {
    let from = format!("from = \"job:{job}\"\n");
    format!("[captions]\n{from}[retriever]\n{from}[ranker]\n{from}")
}

/// Another day: new users, users who are gone, items that the retriever does not know, an item without interactions.
fn another_day(workshop: &Workshop) -> Log {
    let mut log = Log::of_the_shop();
    for user in 60..=120 {
        log.users.remove(&user.to_string());
    }
    for items in log.users.values_mut() {
        items.retain(|item| *item != GONE);
    }
    let first = log.users["1"].clone();
    let (last, before) = first.split_last().unwrap();
    log.users.insert("newcomer".to_owned(), first.clone());
    log.users.insert("explorer".to_owned(), [before, &NEW_ITEMS, &[*last]].concat());
    log.users.insert("stranger".to_owned(), vec![901, 902, 903]);
    log.users.insert("stranger-too".to_owned(), vec![903, 902, 901]);
    log.titles.extend([901, 902, 903].map(|item| (item, format!("Unheard of ({item})"))));
    log.write(&workshop.path("another-day"));
    log
}

#[test]
fn another_population_is_scored_with_the_models_of_an_earlier_job() {
    let workshop = Workshop::open();
    let (trained, _, before) = train(&workshop, "root");
    let log = another_day(&workshop);
    let job = nightly(&workshop, "another-day", "", &models_of(&trained));
    let (_, said, night) = finish(&workshop, &job, "root", &[]);
    let stages: Vec<Stage> = night.stages().iter().map(|s| s.stage).collect();
    assert_eq!(stages, [Stage::Prepare, Stage::Caption, Stage::Retrieve, Stage::Rank]);

    let histories: Vec<HistoryRow> = night.rows(Stage::Prepare, None);
    assert_eq!(histories.len(), log.users.len());
    let candidates: Vec<CandidateRow> = night.rows(Stage::Retrieve, ALL);
    let rankings: Vec<RankingRow> = night.rows(Stage::Rank, ALL);
    let ids = |rows: &[HistoryRow]| rows.iter().map(|r| r.user_id.clone()).collect::<Vec<_>>();
    assert_eq!(candidates.iter().map(|r| r.user_id.clone()).collect::<Vec<_>>(), ids(&histories));
    assert_eq!(rankings.iter().map(|r| r.user_id.clone()).collect::<Vec<_>>(), ids(&histories));

    let items = |job: &JobOutputs| -> BTreeSet<String> {
        job.rows::<ItemRow>(Stage::Prepare, None).into_iter().map(|r| r.item_id).collect()
    };
    let (known, there) = (items(&before), items(&night));
    assert!(known.contains("30") && !there.contains("30") && there.contains("901") && !known.contains("901"));
    for (row, ranking) in candidates.iter().zip(&rankings) {
        let lost = row.user_id.starts_with("stranger");
        assert_eq!(row.items.len(), if lost { 0 } else { 8 }, "user {}", row.user_id);
        assert!(row.items.iter().all(|item| known.contains(item) && there.contains(item)), "{row:?}");
        let sorted = |items: &[String]| items.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&ranking.items), sorted(&row.items));
    }
    // What the retriever does not know changes nothing for it.
    let of = |user: &str| candidates.iter().find(|r| r.user_id == user).unwrap();
    assert_eq!((&of("explorer").items, &of("explorer").scores), (&of("newcomer").items, &of("newcomer").scores));
    let ranked = |user: &str| &rankings.iter().find(|r| r.user_id == user).unwrap().scores;
    assert_ne!(ranked("explorer"), ranked("newcomer"), "the ranker reads the titles of new items");

    assert_unknown_items(&night, &said);
    let captions: Vec<CaptionRow> = night.rows(Stage::Caption, None);
    let caption = |item: &str| captions.iter().find(|r| r.item_id == item).unwrap();
    assert_eq!(caption("1").caption, "a poster with number 1");
    assert_eq!(caption("901").status, CaptionStatus::Missing);
    assert!(caption("901").reason.as_deref().unwrap().starts_with("new_item: "));
}

/// Unknown items are in the artifact's table, in the report, and in what a person reads at the end.
fn assert_unknown_items(night: &JobOutputs, said: &Value) {
    let rejected: Vec<RejectedRow> = night.rows(Stage::Retrieve, ALL);
    let mut users: BTreeMap<String, u64> = BTreeMap::new();
    for row in rejected {
        assert_eq!(row.reason, "unknown to the retriever");
        *users.entry(row.item_id.unwrap()).or_default() += row.users.unwrap();
    }
    let expected = [("901", 3), ("902", 3), ("903", 2)].map(|(item, users)| (item.to_owned(), users));
    assert_eq!(users, BTreeMap::from(expected));
    let unknown = &said["report"]["unknown_items"]["all"];
    let figure = |key: &str| unknown[key].as_u64().unwrap();
    assert_eq!((figure("items"), figure("interactions")), (3, 8));
    assert_eq!((figure("users_with_unknown_items"), figure("users_without_known_items")), (3, 2));
    assert_eq!(unknown["most_frequent"][0]["item_id"], "901");
}

/// The same population with the same models is the same work: nothing is done again.
#[test]
fn the_training_population_is_not_scored_twice() {
    let workshop = Workshop::open();
    let (trained, _, before) = train(&workshop, "root");
    let job = workshop.job().display().to_string();
    // By its name, which no other job has.
    let from = ["captions.from=job:small", "retriever.from=job:small", "ranker.from=job:small"];
    let sets = [&from[..], &[r#"splits=["all"]"#, "name=night"]].concat();
    // The job file sets keys of training, to what the models were trained with: that is no contradiction.
    let (_, _, night) = finish(&workshop, &job, "root", &sets);
    assert_eq!(night.artifact(Stage::Retrieve, ALL), before.artifact(Stage::Retrieve, ALL));
    let rows: Vec<RankingRow> = night.rows(Stage::Rank, ALL);
    assert_eq!(rows, before.rows::<RankingRow>(Stage::Rank, ALL));

    base::write(&workshop.path("other"), |config| config["rms_norm_eps"] = 0.01.into());
    let other = format!("ranker.base={}", workshop.path("other").display());
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).chain(["--set", &other]).collect();
    let ended = workshop.run("root", &sets);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    for word in ["ranker.from", &trained, "another base", "config.json"] {
        assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
    }
}

#[test]
fn models_in_folders_score_like_those_of_the_job() {
    let workshop = Workshop::open();
    let (trained, _, before) = train(&workshop, "root");
    another_day(&workshop);
    let job = nightly(&workshop, "another-day", "", &models_of(&trained));
    let (_, _, expected) = finish(&workshop, &job, "root", &[]);
    let folder = |stage: Stage| -> PathBuf { workshop.path("root").join(before.artifact(stage, None).model_prefix()) };
    let model = format!(
        "[captions]\nfrom = \"job:{trained}\"\n[retriever]\nfrom = {:?}\ncandidates = 8\n[ranker]\nfrom = {:?}\nbase = {:?}\n\
         role = \"You pick films.\"\nhistory = 3\n",
        folder(Stage::TrainRetriever),
        folder(Stage::TrainRanker),
        workshop.path("base"),
    );
    let (_, _, found) = finish(&workshop, &nightly(&workshop, "another-day", "", &model), "root", &[]);
    assert_ne!(found.artifact(Stage::Retrieve, ALL), expected.artifact(Stage::Retrieve, ALL));
    assert_eq!(found.rows::<CandidateRow>(Stage::Retrieve, ALL), expected.rows::<CandidateRow>(Stage::Retrieve, ALL));
    assert_eq!(found.rows::<RankingRow>(Stage::Rank, ALL), expected.rows::<RankingRow>(Stage::Rank, ALL));
}

#[test]
fn what_cannot_be_taken_from_an_earlier_job_is_named_before_anything_runs() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let stages = r#"stages=["prepare","train_retriever","retrieve"]"#;
    let (trained, _, _) = finish(&workshop, &job, "root", &[stages]);
    let (other, _, _) = finish(&workshop, &job, "root", &[stages, "retriever.candidates=5"]);
    let last = if trained.ends_with('0') { '1' } else { '0' };
    let near = format!("{}{last}", &trained[..trained.len() - 1]);
    let cases = [
        (
            "[retriever]\nfrom = \"job:small\"\n".to_owned(),
            "prepare,retrieve",
            vec!["retriever.from", "several jobs are named small", &trained, &other],
        ),
        (
            format!("[retriever]\nfrom = \"job:{near}\"\n"),
            "prepare,retrieve",
            vec!["retriever.from", &near, "did you mean", &trained],
        ),
        (
            models_of(&trained),
            "prepare,caption,retrieve,rank",
            vec!["ranker.from", &trained, "has no stage train_ranker"],
        ),
        (
            format!("[captions]\nfrom = \"job:{trained}\"\n"),
            "prepare,caption",
            vec!["captions.from", &trained, "no stage caption"],
        ),
        (
            format!("[retriever]\nfrom = \"job:{trained}\"\nhidden = 32\n"),
            "prepare,retrieve",
            vec!["retriever.hidden", "is 32", "with 16", "leave it out"],
        ),
        (
            "[retriever]\nfrom = \"nowhere\"\n".to_owned(),
            "prepare,retrieve",
            vec!["retriever.from", "nowhere is no model"],
        ),
        (
            format!("[retriever]\nfrom = {:?}\n", workshop.path("base")),
            "prepare,retrieve",
            vec!["retriever.from", "it needs config.json and item_ids.json and model.safetensors"],
        ),
    ];
    for (model, stages, words) in cases {
        let stages: Vec<String> = stages.split(',').map(|stage| format!("{stage:?}")).collect();
        let job = nightly(&workshop, "data", &format!("stages = [{}]", stages.join(",")), &model);
        let root = workshop.path("root").display().to_string();
        let ended = workshop.call(&["run", &job, "--root", &root]);
        assert_eq!(ended.code, Some(64), "{model}\n{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{model}: no {word} in\n{}", ended.stderr);
        }
    }
}
