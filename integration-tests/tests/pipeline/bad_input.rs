//! What a user reads, and what a script gets, when something is wrong with the input.

use std::path::Path;

use mllm4rec_integration_tests::program::Workshop;
use mllm4rec_integration_tests::{base, shop};

/// The job file is wrong.
const BAD_JOB: i32 = 64;
/// The data are wrong.
const BAD_DATA: i32 = 65;

struct Case {
    name: &'static str,
    sets: Vec<String>,
    /// What the message must hold: what is wrong, and the key that mends it.
    words: Vec<&'static str>,
    code: i32,
}

fn case<const N: usize>(name: &'static str, code: i32, sets: &[String], words: [&'static str; N]) -> Case {
    Case { name, sets: sets.to_vec(), words: words.to_vec(), code }
}

fn set(key: &str, value: impl std::fmt::Display) -> String {
    format!("{key}={value}")
}

#[test]
fn wrong_datasets_are_named_with_the_way_out() {
    let workshop = Workshop::open();
    let table = shop::write_table(&workshop.path("table"));
    std::fs::create_dir(workshop.path("empty")).unwrap();
    let without_ranker = set("stages", r#"["prepare","caption","train_retriever","retrieve","evaluate"]"#);
    let dataset = |path: &Path| set("dataset.path", path.display());
    check(
        &workshop,
        &[
            case("missing folder", BAD_JOB, &[dataset(&workshop.path("nowhere"))], ["nowhere", "dataset.path"]),
            case("empty folder", BAD_JOB, &[dataset(&workshop.path("empty"))], ["dataset.path", "ratings.csv"]),
            case(
                "missing column",
                BAD_DATA,
                &[
                    set("dataset.format", "table"),
                    dataset(&table),
                    set("dataset.columns", "{user='customer',item='product'}"),
                    without_ranker.clone(),
                ],
                ["no column `product`", "dataset.columns.item", "customer, article, when, name"],
            ),
            case(
                "nothing left",
                BAD_DATA,
                &[set("dataset.min_interactions_per_user", 1000), without_ranker.clone()],
                ["no user of", "dataset.min_interactions_per_user", "0 after it"],
            ),
            case(
                "too many rejected rows",
                BAD_DATA,
                &[set("limits.max_rejected", 2), without_ranker.clone()],
                ["were rejected", "limits.max_rejected", "ratings.csv:2"],
            ),
            case(
                "more candidates than the catalogue has",
                BAD_DATA,
                &[set("retriever.candidates", 61), without_ranker],
                ["retriever.candidates", "60 items", "lower it"],
            ),
        ],
    );
}

#[test]
fn wrong_rankers_are_named_with_the_way_out() {
    let workshop = Workshop::open();
    let golden = base::golden();
    base::write(&workshop.path("wide"), |config| config["intermediate_size"] = 128.into());
    base::write(&workshop.path("deep"), |config| config["num_hidden_layers"] = 3.into());
    base::write(&workshop.path("strange"), |config| config["model_type"] = "mamba".into());
    let base = |path: &Path| set("ranker.base", path.display());
    check(
        &workshop,
        &[
            case(
                "more candidates than letters",
                BAD_JOB,
                &[set("retriever.candidates", 40)],
                ["retriever.candidates", "ranker.labels", "26"],
            ),
            case(
                "missing folder",
                BAD_JOB,
                &[base(&workshop.path("nowhere"))],
                ["nowhere", "ranker.base", "HF layout"],
            ),
            case("no tokenizer", BAD_JOB, &[base(&golden)], ["no tokenizer.json", "ranker.base"]),
            case("wider", BAD_JOB, &[base(&workshop.path("wide"))], ["ranker", "gate_proj", "[112, 48]", "[128, 48]"]),
            case("deeper", BAD_JOB, &[base(&workshop.path("deep"))], ["ranker", "model.layers.2", "missing"]),
            case("unknown kind", BAD_JOB, &[base(&workshop.path("strange"))], ["mamba", "not supported", "llama"]),
            case(
                "more candidates than a user has not seen",
                BAD_DATA,
                &[set("dataset", crowded(&workshop.path("crowded"))), set("ranker.negatives", "random")],
                ["`retriever.candidates` = 8", "of 12 items", "lower it to 3"],
            ),
            case(
                "no room in a prompt for the candidates",
                BAD_JOB,
                &[set("ranker.max_prompt_tokens", 100)],
                ["ranker.max_prompt_tokens", "100", "raise"],
            ),
            case(
                "prompts longer than the base takes",
                BAD_JOB,
                &[set("ranker.max_prompt_tokens", 100_000)],
                ["ranker.max_prompt_tokens", "100000", "lower it to"],
            ),
        ],
    );
}

/// A dataset in which every user knows ten of the twelve items, as the value of the key `dataset`.
fn crowded(folder: &Path) -> String {
    std::fs::create_dir(folder).unwrap();
    let mut text = "user,item,time\n".to_owned();
    for user in 0..30 {
        for place in 0..10 {
            text += &format!("u{user:02},i{:02},{place}\n", (user + place) % 12);
        }
    }
    let path = folder.join("interactions.csv");
    std::fs::write(&path, text).unwrap();
    format!("{{format='table',path={path:?},columns={{time='time'}}}}")
}

/// Runs every case into a root of its own and reports all that differ.
fn check(workshop: &Workshop, cases: &[Case]) {
    let mut wrong = String::new();
    for case in cases {
        let sets: Vec<&str> = case.sets.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        let ended = workshop.run(case.name, &sets);
        println!("{}: exit {:?} after {:?}\n{}", case.name, ended.code, ended.took, ended.stderr);
        let error = ended.stderr.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
        let missing: Vec<_> = case.words.iter().filter(|w| !error.contains(**w)).collect();
        if ended.code != Some(case.code) || !missing.is_empty() {
            wrong += &format!(
                "{}: exit {:?}, not {}; lacks {missing:?}: {}\n",
                case.name, ended.code, case.code, ended.stderr
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
