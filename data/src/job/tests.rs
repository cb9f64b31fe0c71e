#![allow(clippy::unwrap_used)]

use super::*;

const MINIMAL: &str = r#"
schema_version = 1
name = "shop"
[dataset]
format = "table"
path = "/data"
[ranker]
base = "/models/base"
"#;

fn problems(text: &str, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    match Job::parse("job.toml", text, &sets) {
        Ok(job) => panic!("no problem found in {job:?}"),
        Err(Error::Job(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn defaults_are_those_of_the_paper() {
    let job = Job::parse("job.toml", MINIMAL, &[]).unwrap();
    assert_eq!(job.retriever.hidden, 64);
    assert_eq!(job.retriever.candidates, 20);
    assert_eq!(job.ranker.lora.targets, ["q_proj", "v_proj"]);
    assert!(job.stages.iter().copied().eq(Stage::named()));
    assert_eq!(job.limits.max_rejected, MaxRejected::Share(0.01));
    assert_eq!(job.limits.memory_bytes, 4 << 30);
    assert_eq!(job.ranker.micro_batch, MicroBatch::Auto);
}

#[test]
fn overrides_win_and_survive_the_round_trip() {
    let sets = ["retriever.dropout=0.4".to_owned(), "dataset.path=/other data/x".to_owned()];
    let job = Job::parse("job.toml", MINIMAL, &sets).unwrap();
    assert!((job.retriever.dropout - 0.4).abs() < 1e-12);
    assert_eq!(job.dataset.path, "/other data/x");
    assert_eq!(Job::parse("again", &job.to_toml(), &[]).unwrap(), job);
}

#[test]
fn all_problems_are_reported_at_once_with_line_and_hint() {
    let text = MINIMAL.replace("[ranker]", "[retriever]\nhiden = 32\ndropout = 1.5\n[ranker]\nnegatives = \"randm\"");
    let found = problems(&text, &["retriever.layers=many"]);
    assert_eq!(
        found,
        [
            "--set: retriever.layers: is the string \"many\", expected a whole number",
            "job.toml:8: retriever.hiden: unknown key; did you mean `hidden`?",
            "job.toml:9: retriever.dropout: is 1.5, allowed are 0 to 0.95",
            "job.toml:11: ranker.negatives: `randm` is not one of random, retrieved, mixed; did you mean `random`?",
        ]
    );
}

#[test]
fn missing_keys_and_bad_syntax_name_themselves() {
    let found = problems("schema_version = 1\nname = \"x\"", &[]);
    assert!(found.iter().any(|p| p.contains("dataset.path: is missing")), "{found:?}");
    let found = problems("schema_version = ", &[]);
    assert!(found[0].starts_with("job.toml:1"), "{found:?}");
}

#[test]
fn stages_need_what_they_read() {
    let found = problems(&MINIMAL.replace("name", "stages = [\"rank\", \"prepare\"]\nname"), &[]);
    assert!(found.iter().any(|p| p.contains("`rank` needs `train_ranker`")), "{found:?}");
}

#[test]
fn more_candidates_than_letters_is_refused() {
    let found = problems(MINIMAL, &["retriever.candidates=40"]);
    assert!(found[0].contains("ranker.labels") && found[0].contains("ranker.window = 20"), "{found:?}");
    let windowed = |candidates: u32, window: u32| {
        let sets = [format!("retriever.candidates={candidates}"), format!("ranker.window={window}")];
        Job::parse("job.toml", MINIMAL, &sets).map(|job| job.shown_candidates())
    };
    assert_eq!([windowed(40, 20), windowed(10, 20), windowed(400, 20)].map(Result::unwrap), [20, 10, 20]);
    let found = windowed(401, 20).unwrap_err().to_string();
    assert!(found.contains("one final for at most 400"), "{found}");
    let found = windowed(40, 30).unwrap_err().to_string();
    assert!(found.contains("has labels for 26"), "{found}");
    assert!(windowed(40, 1).unwrap_err().to_string().contains("ranker.window: is 1"));
}

#[test]
fn an_order_needs_somebody_who_orders() {
    let with = |negatives: &str| {
        let sets = ["ranker.candidate_order=retrieved".to_owned(), format!("ranker.negatives={negatives}")];
        Job::parse("job.toml", MINIMAL, &sets).map_err(|e| e.to_string())
    };
    assert!(with("random").unwrap_err().contains("random negatives have no order"));
    with("mixed").unwrap();
}

#[test]
fn sizes_are_read() {
    assert_eq!(parse_bytes("1.5GiB"), Some(3 << 29));
    assert_eq!(parse_bytes("10"), Some(10));
    assert_eq!(parse_bytes("ten"), None);
}

/// A job that trains nothing: models of an earlier one.
const NIGHTLY: &str = r#"
schema_version = 1
name = "nightly"
splits = ["all"]
since = "job:shop-0123456789ab"
[dataset]
format = "table"
path = "/data"
[captions]
from = "job:shop-0123456789ab"
[retriever]
from = "job:shop-0123456789ab"
[ranker]
from = "job:shop-0123456789ab"
"#;

#[test]
fn jobs_with_finished_models_train_nothing() {
    let job = Job::parse("job.toml", NIGHTLY, &[]).unwrap();
    assert_eq!(job.stages, [Stage::Prepare, Stage::Caption, Stage::Retrieve, Stage::Rank, Stage::Evaluate]);
    assert_eq!(job.retriever.from, ModelFrom::Job("shop-0123456789ab".to_owned()));
    assert_eq!(job.captions.from, CaptionsFrom::Job("shop-0123456789ab".to_owned()));
    assert_eq!(job.since, Some(Since::Job("shop-0123456789ab".to_owned())));
    let last = Job::parse("job.toml", NIGHTLY, &["since=last".to_owned()]).unwrap();
    assert_eq!((last.since.as_ref(), last.without_since().unwrap().since), (Some(&Since::Last), None));
    let sets = [r#"stages=["prepare","retrieve","train_retriever"]"#, "since=yesterday", "captions.from=job:"];
    let found = problems(NIGHTLY, &sets);
    let expected = [
        "--set: captions.from: `job:` is not one of none, table, blip2, job:<id>",
        "--set: since: is `yesterday`, expected \"job:<id>\" or \"last\"",
        "job.toml:12: retriever.from: names a finished model, but `train_retriever` is in `stages`: leave one of them out",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_folder_takes_no_keys_of_training() {
    let sets = ["retriever.from=runs/models/x", "retriever.hidden=32", "ranker.from=s3://b/x", "ranker.lora={rank=4}"];
    let found = problems(NIGHTLY, &[&sets[..], &["ranker.history=3"]].concat());
    let expected = [
        "--set: ranker.lora: has no effect on the finished model in s3://b/x: leave it out",
        "--set: retriever.hidden: has no effect on the finished model in runs/models/x: leave it out",
        "job.toml:13: ranker.base: is missing",
    ];
    assert!(found.iter().zip(expected).all(|(f, e)| f.starts_with(e)) && found.len() == 3, "{found:#?}");
}

#[test]
fn a_model_brings_its_settings_along() {
    let sets = ["ranker.history=7", "ranker.lora.rank=4", "retriever.hidden=32", "retriever.candidates=10"];
    let earlier = Job::parse("job.toml", MINIMAL, &sets.map(str::to_owned)).unwrap();
    let mut job = Job::parse("job.toml", NIGHTLY, &["ranker.micro_batch_tokens=9".to_owned()]).unwrap();
    for section in [ModelSection::Retriever, ModelSection::Ranker] {
        job.adopt(section, &earlier, "shop-0123456789ab").unwrap();
    }
    assert_eq!((job.retriever.hidden, job.retriever.candidates), (32, 10));
    assert_eq!((job.ranker.history, job.ranker.lora.rank, job.ranker.base.as_str()), (7, 4, "/models/base"));
    assert_eq!(job.ranker.micro_batch, MicroBatch::Tokens(9));
    assert!(job.ranker.from.job().is_some() && job.retriever.from.job().is_some());
    assert_eq!(Job::parse("again", &job.to_toml(), &[]).unwrap(), job, "a worker reads the same job");
}

#[test]
fn settings_that_contradict_the_model_are_refused_and_equal_ones_are_not() {
    let earlier = Job::parse("job.toml", MINIMAL, &["ranker.lora.rank=4".to_owned()]).unwrap();
    let with = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let mut job = Job::parse("job.toml", NIGHTLY, &sets).unwrap();
        job.adopt(ModelSection::Ranker, &earlier, "shop-1").map_err(|e| e.to_string())
    };
    with(&["ranker.lora.rank=4", "ranker.history=20", "ranker.base=/elsewhere"]).unwrap();
    let error = with(&["ranker.lora.rank=8", "ranker.history=3"]).unwrap_err();
    for words in ["ranker.history: is 3", "job shop-1 has trained the model with 20", "ranker.lora.rank: is 8"] {
        assert!(error.contains(words), "{error}");
    }
    let error = with(&["retriever.candidates=40"]).unwrap_err();
    assert!(error.contains("retriever.candidates: is 40") && error.contains("letters"), "{error}");
}

#[test]
fn places_are_filled_in_and_wrong_ones_refused() {
    let place = |url: &str| Place::parse(url, "s3://shop/runs/").unwrap();
    let fill = Fill { job: "shop-0123456789ab", name: "shop", date: "2026-11-29" };
    for (url, several, expected) in [
        ("s3://shop/recs/{job}/{date}/", false, "s3://shop/recs/shop-0123456789ab/2026-11-29"),
        ("s3://shop/recs/{name}/{date}", true, "s3://shop/recs/shop/2026-11-29/test"),
        ("gs://b/{split}/{date}", true, "gs://b/test/2026-11-29"),
        ("file://./out", false, "file://./out"),
        ("s3://shop/runs-published", false, "s3://shop/runs-published"),
        ("s3://shop/runs/published", false, "s3://shop/runs/published"),
    ] {
        assert_eq!(place(url).folder(fill, Split::Test, several), expected);
    }
    for (url, words) in [
        ("s3://b/{day}", "`{day}` is not a placeholder; there are {job}, {name}, {date}, {split}"),
        ("s3://b/{job", "without its other half"),
        ("s3://b/job}", "without its other half"),
        ("ftp://b/{job}", "is not a kind of store"),
        ("s3://shop/runs", "choose a folder of its own"),
        ("s3://shop/runs/tables/x", "choose a folder of its own"),
    ] {
        let error = Place::parse(url, "s3://shop/runs/").unwrap_err();
        assert!(error.contains(words), "{url}: {error}");
    }
    let found = problems(&MINIMAL.replace("name", "stages = [\"prepare\"]\nname"), &["output.publish=s3://b/{job}"]);
    assert!(found.iter().any(|p| p.contains("output.publish: has nothing to copy")), "{found:?}");
}
