//! What is made of a ranker's answers: orders that are averaged, a blend, a temperature.

use data::job::{Split, Stage};
use data::tables::RankingRow;
use mllm4rec_integration_tests::program::Workshop;

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
    for (before, behind) in before.iter().zip(&behind) {
        let sorted = |row: &RankingRow| {
            let mut items = row.items.clone();
            items.sort_unstable();
            items
        };
        assert_eq!((&before.user_id, sorted(before)), (&behind.user_id, sorted(behind)));
        assert!((behind.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{behind:?}");
        assert!(behind.scores.is_sorted_by(|a, b| a >= b), "{behind:?}");
    }
    // One setting alone costs one stage too, and a temperature changes no order.
    let (_, _, cooled) = finish(&workshop, &job, "root", &["ranker.calibrate=true"]);
    let cooled = cooled.rows::<RankingRow>(Stage::Rank, TEST);
    assert!(cooled.iter().zip(&before).all(|(a, b)| a.items == b.items && a.scores == b.scores));
}
