//! Only what has changed since an earlier job is computed, and the tables are those of a job that computes everything.

use std::fmt::Write as _;

use data::job::{Split, Stage};
use data::tables::{CandidateRow, RankingRow, TargetRankRow};
use mllm4rec_integration_tests::log::Log;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use serde_json::Value;

use crate::earlier::{finish, models_of, nightly, train};

const ROOT: &str = "root";
const ALL: Option<Split> = Some(Split::All);

/// A shop whose models are trained and whose first night is scored.
struct Nights {
    workshop: Workshop,
    /// The job that trained.
    trained: String,
    /// The job of the first night.
    first: String,
}

/// How many users a stage has copied and computed, and why.
struct Counts {
    copied: u64,
    rescored: u64,
    why: Value,
}

impl Nights {
    fn open() -> Self {
        let workshop = Workshop::open();
        let (trained, _, _) = train(&workshop, ROOT);
        let mut nights = Self { workshop, trained, first: String::new() };
        nights.captions(|_| String::new());
        Log::of_the_shop().write(&nights.workshop.path("night-0"));
        (nights.first, _, _) = nights.score("night-0", "", &[]);
        nights
    }

    /// A table of captions for the odd items, with something behind that of each.
    fn captions(&self, more: impl Fn(u32) -> String) {
        let mut text = "item_id,caption\n".to_owned();
        for item in (1..=60).step_by(2) {
            let _ = writeln!(text, "{item},a poster with number {item}{}", more(item));
        }
        std::fs::write(self.workshop.path("night.csv"), text).unwrap();
    }

    fn score(&self, data: &str, since: &str, sets: &[&str]) -> (String, Value, JobOutputs) {
        let job = nightly(&self.workshop, data, since, &models_of(&self.trained));
        let table = format!("captions.table={}", self.workshop.path("night.csv").display());
        let sets = [&["captions.from=table", &table], sets].concat();
        finish(&self.workshop, &job, ROOT, &sets)
    }

    /// Scores another night since an earlier one, and everything again; the tables must not differ.
    fn check(&self, since: &str, change: impl Fn(&mut Log), sets: &[&str]) -> (String, Counts, Counts) {
        let mut log = Log::of_the_shop();
        change(&mut log);
        log.write(&self.workshop.path("night-1"));
        let (_, _, whole) = self.score("night-1", "", sets);
        let (id, said, copied) = self.score("night-1", &format!("since = \"job:{since}\""), sets);
        let candidates: Vec<CandidateRow> = copied.rows(Stage::Retrieve, ALL);
        assert_eq!(candidates.len(), log.users.len());
        assert_eq!(candidates, whole.rows::<CandidateRow>(Stage::Retrieve, ALL));
        assert_eq!(copied.rows::<RankingRow>(Stage::Rank, ALL), whole.rows::<RankingRow>(Stage::Rank, ALL));
        let counts = |stage: &str| {
            let counts = &said["report"]["since"][stage];
            let count = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("{key} of {stage} in {said}"));
            let found = Counts { copied: count("copied"), rescored: count("rescored"), why: counts["why"].clone() };
            assert_eq!(found.copied + found.rescored, log.users.len() as u64);
            found
        };
        assert_eq!(said["report"]["since"]["job"], since);
        (id, counts("retrieve.all"), counts("rank.all"))
    }
}

/// Another history, users who come and go at either end, so that all shards are cut in other places.
#[test]
fn users_who_changed_are_computed_and_the_others_copied() {
    let nights = Nights::open();
    let (same, retrieve, rank) = nights.check(&nights.first, |_| {}, &[]);
    assert_eq!((retrieve.copied, rank.copied), (120, 120), "nothing has changed");

    let longer = |log: &mut Log| {
        let next = (1..=60).find(|item| !log.users["50"].contains(item)).unwrap();
        log.of("50").push(next);
    };
    let (second, retrieve, rank) = nights.check(&same, longer, &[]);
    assert_eq!((retrieve.rescored, rank.rescored), (1, 1));
    assert_eq!(retrieve.why["the history changed"], 1);
    // A night without any change after one with changes is that night's own work.
    let (_, retrieve, rank) = nights.check(&second, longer, &[]);
    assert_eq!((retrieve.copied, rank.copied), (120, 120));

    let moved = |log: &mut Log| {
        for user in ["1", "10", "100", "55", "99"] {
            log.users.remove(user);
        }
        let items = log.users["2"].clone();
        for user in ["0", "00", "54a", "zz"] {
            log.users.insert(user.to_owned(), items.clone());
        }
    };
    let (_, retrieve, rank) = nights.check(&nights.first, moved, &[]);
    assert_eq!((retrieve.copied, retrieve.rescored, rank.rescored), (115, 4, 4));
    assert_eq!((&retrieve.why["new user"], &rank.why["new user"]), (&4.into(), &4.into()));

    let few = |log: &mut Log| log.users.retain(|user, _| user.len() < 3);
    let (_, retrieve, rank) = nights.check(&nights.first, few, &[]);
    assert_eq!((retrieve.rescored, rank.rescored), (0, 0));
}

/// Whoever scores every night names no night.
#[test]
fn the_last_night_of_a_name_is_found() {
    let nights = Nights::open();
    let since = |data: &str| nights.score(data, "since = \"last\"", &[]);
    let (same, said, _) = since("night-0");
    assert_eq!((&same, &said["report"]["since"]["job"]), (&nights.first, &nights.first.as_str().into()));
    let mut log = Log::of_the_shop();
    log.users.insert("zz".to_owned(), log.users["2"].clone());
    log.write(&nights.workshop.path("night-1"));
    let (second, said, _) = since("night-1");
    assert_eq!(said["report"]["since"]["job"], nights.first.as_str());
    assert_eq!(said["report"]["since"]["rank.all"]["rescored"], 1);
    log.users.remove("2");
    log.write(&nights.workshop.path("night-2"));
    let (_, said, _) = since("night-2");
    assert_eq!(said["report"]["since"]["job"], second.as_str(), "and not the first one");
    let (_, said, _) = nights.score("night-2", "since = \"last\"", &["name=another"]);
    assert!(said["report"]["since"].is_null(), "the first night of a name has none before it: {said}");
}

/// What an item is called, and what its picture shows, counts for those whose prompts show it.
#[test]
fn items_that_changed_are_computed_for_those_who_see_them() {
    let nights = Nights::open();
    let retitled = |log: &mut Log| *log.titles.get_mut(&7).unwrap() = "The Renamed Verdict (1966)".to_owned();
    let (_, retrieve, rank) = nights.check(&nights.first, retitled, &[]);
    assert_eq!(retrieve.rescored, 0);
    assert!((1..120).contains(&rank.rescored), "{} users see item 7", rank.rescored);
    assert_eq!(rank.why["an item's title changed"], rank.rescored);

    nights.captions(|item| if item == 9 { " in blue".to_owned() } else { String::new() });
    let (_, retrieve, rank) = nights.check(&nights.first, |_| {}, &[]);
    assert_eq!(retrieve.copied, 120);
    assert!((1..120).contains(&rank.rescored), "{} users see item 9", rank.rescored);
    assert_eq!(rank.why["an item's caption changed"], rank.rescored);
    nights.captions(|_| String::new());

    // An item without interactions cannot be proposed; when it comes back, it might be to anybody.
    let without = |log: &mut Log| log.users.values_mut().for_each(|items| items.retain(|item| *item != 30));
    let had = Log::of_the_shop().users.values().filter(|items| items.contains(&30)).count() as u64;
    let (gone, retrieve, rank) = nights.check(&nights.first, without, &[]);
    assert_eq!(retrieve.why["the history changed"], had);
    assert!(retrieve.why["a candidate left the catalogue"].as_u64().unwrap() > 0, "{}", retrieve.why);
    assert!(retrieve.copied > 0 && rank.copied > 0);
    let (_, retrieve, rank) = nights.check(&gone, |_| {}, &[]);
    assert_eq!(retrieve.why["an item came into the catalogue that the retriever knows"], 120);
    assert!(rank.copied > 0, "those whose candidates are the same after all");
}

#[test]
fn what_concerns_everybody_is_computed_for_everybody_and_said() {
    let nights = Nights::open();
    let (_, retrieve, rank) = nights.check(&nights.first, |_| {}, &["retriever.candidates=5"]);
    assert_eq!(retrieve.why["retriever.candidates was 8 and is 5"], 120);
    assert_eq!(rank.why["the candidates changed"], 120);
    let (_, retrieve, rank) = nights.check(&nights.first, |_| {}, &["captions.from=none"]);
    assert_eq!((retrieve.copied, rank.copied), (120, 0));
    assert_eq!(rank.why["prompts show no captions any more"], 120);

    let job = nights.workshop.job().display().to_string();
    let (other, _, _) = finish(&nights.workshop, &job, ROOT, &["ranker.max_steps=3", "retriever.max_epochs=2"]);
    let ranker = format!("ranker.from=job:{other}");
    let (_, retrieve, rank) = nights.check(&nights.first, |_| {}, &[&ranker]);
    assert_eq!((retrieve.copied, rank.copied), (120, 0));
    assert_eq!(rank.why["the ranker changed"], 120);
    let retriever = format!("retriever.from=job:{other}");
    let (_, retrieve, _) = nights.check(&nights.first, |_| {}, &[&retriever]);
    assert_eq!(retrieve.why["the retriever changed"], 120);
}

/// Held-out items: ranks are copied too, as long as the catalogue is the same.
#[test]
fn target_ranks_are_copied_while_the_catalogue_is_the_same() {
    let nights = Nights::open();
    let splits = [r#"splits=["test"]"#];
    let (first, _, _) = nights.score("night-0", "", &splits);
    let mut log = Log::of_the_shop();
    log.of("50").swap(0, 1);
    log.write(&nights.workshop.path("night-1"));
    let (_, _, whole) = nights.score("night-1", "", &splits);
    let (_, said, copied) = nights.score("night-1", &format!("since = \"job:{first}\""), &splits);
    let test = Some(Split::Test);
    assert_eq!(copied.rows::<TargetRankRow>(Stage::Retrieve, test), whole.rows::<TargetRankRow>(Stage::Retrieve, test));
    assert_eq!(copied.rows::<CandidateRow>(Stage::Retrieve, test), whole.rows::<CandidateRow>(Stage::Retrieve, test));
    assert_eq!(said["report"]["since"]["retrieve.test"]["rescored"], 1);

    let root = nights.workshop.path(ROOT).display().to_string();
    let job = nightly(&nights.workshop, "night-1", &format!("since = \"job:{first}\""), &models_of(&nights.trained));
    let ended = nights.workshop.call(&["run", &job, "--root", &root]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    for word in ["since", &first, "no stage retrieve.all", "retrieve.test"] {
        assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
    }
}
