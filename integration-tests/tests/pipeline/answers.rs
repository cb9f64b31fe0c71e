//! How a ranker is asked, and what is made of its answers: heats, orders that are averaged, a blend, a temperature.

use data::job::{Split, Stage};
use data::tables::RankingRow;
use mllm4rec_integration_tests::program::Workshop;
use serde_json::json;

use super::earlier::finish;

const TEST: Option<Split> = Some(Split::Test);

#[test]
fn what_validation_says_changes_rankings_and_trains_nothing_again() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let (_, _, plain) = finish(&workshop, &job, "root", &[]);
    let sets = ["ranker.permutations=3", "ranker.blend=fitted", "ranker.calibrate=true"];
    let (_, said, fitted) = finish(&workshop, &job, "root", &sets);
    assert_eq!(fitted.artifact(Stage::TrainRanker, None), plain.artifact(Stage::TrainRanker, None), "{said}");
    assert_ne!(fitted.artifact(Stage::Rank, TEST), plain.artifact(Stage::Rank, TEST));
    let [before, behind] = [&plain, &fitted].map(|job| job.rows::<RankingRow>(Stage::Rank, TEST));
    assert_eq!(before.len(), behind.len());
    assert!(before != behind);
    same_candidates(&before, &behind);
    // One setting alone costs one stage too, and a temperature changes no order.
    let (_, _, cooled) = finish(&workshop, &job, "root", &["ranker.calibrate=true"]);
    let cooled = cooled.rows::<RankingRow>(Stage::Rank, TEST);
    assert!(cooled.iter().zip(&before).all(|(a, b)| a.items == b.items && a.scores == b.scores));
}

/// Candidates may be more than a prompt shows; a window that holds them all changes nothing.
#[test]
fn heats_and_a_final_rank_more_than_a_prompt_shows() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let rows = |sets: &[&str]| finish(&workshop, &job, "root", sets).2.rows::<RankingRow>(Stage::Rank, TEST);
    let plain = rows(&[]);
    assert_eq!(rows(&["ranker.window=8"]), plain);
    let heats = rows(&["ranker.window=3", "ranker.blend=fitted", "ranker.permutations=2", "ranker.calibrate=true"]);
    same_candidates(&plain, &heats);
    assert!(heats != plain);
    // More of them than there are letters, where each was one too many.
    let many = rows(&["ranker.window=8", "retriever.candidates=30"]);
    assert!(many.iter().any(|row| row.items.len() == 30), "{} items", many[0].items.len());
    assert!(many.iter().all(|row| row.scores.iter().all(|score| score.is_finite())));
}

/// Eight bits are used where they leave the order as the job asks for, and else nothing has changed.
#[test]
fn eight_bits_are_judged_by_the_orders_that_they_give() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    // Many candidates whom a network that has learnt little hardly tells apart.
    let run = |more: &[&str]| finish(&workshop, &job, "root", &[&["retriever.candidates=20"], more].concat());
    let (_, _, plain) = run(&[]);
    let before = plain.rows::<RankingRow>(Stage::Rank, TEST);
    for (least, used) in [("0.0", true), ("1.0", false)] {
        let (_, said, cut) = run(&["ranker.fp8=true", &format!("ranker.fp8_agreement={least}")]);
        assert_eq!(cut.artifact(Stage::TrainRanker, None), plain.artifact(Stage::TrainRanker, None));
        let behind = cut.rows::<RankingRow>(Stage::Rank, TEST);
        let found = &said["report"]["fp8"]["rank.test"];
        let [first, tau] = ["same_first", "kendall"].map(|key| found[key].as_f64().unwrap());
        assert_eq!((&found["used"], &found["users"]), (&json!(used), &json!(before.len())), "{found}");
        assert!((0.5..1.0).contains(&first) && (0.5..1.0).contains(&tau), "{found}");
        same_candidates(&before, &behind);
        assert_eq!(before == behind, !used, "{found}");
    }
}

#[test]
fn training_shows_candidates_in_the_order_of_use() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let rows = |sets: &[&str]| finish(&workshop, &job, "root", sets).2.rows::<RankingRow>(Stage::Rank, TEST);
    let (shuffled, ordered) = (rows(&[]), rows(&["ranker.candidate_order=retrieved"]));
    same_candidates(&shuffled, &ordered);
    assert!(shuffled != ordered, "what was learnt differs");
}

/// The same candidates of the same users in two orders, each a whole answer.
fn same_candidates(before: &[RankingRow], behind: &[RankingRow]) {
    assert_eq!(before.len(), behind.len());
    for (before, behind) in before.iter().zip(behind) {
        let sorted = |row: &RankingRow| {
            let mut items = row.items.clone();
            items.sort_unstable();
            items
        };
        assert_eq!((&before.user_id, sorted(before)), (&behind.user_id, sorted(behind)));
        assert!((behind.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{behind:?}");
        assert!(behind.scores.is_sorted_by(|a, b| a >= b), "{behind:?}");
    }
}
