//! Real datasets whose sizes are known; skipped, loudly, where they are not at hand.

use super::*;
use crate::dataset::training_items;
use crate::examples::TrainingPrefixes;

/// A dataset's folder: from the environment, or beside the workspace.
fn folder(variable: &str, name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there; set {variable} to a copy of {name}", path.display());
    None
}

fn five_core(format: Format, path: &Path) -> Outcome {
    let core = Dataset { min_interactions_per_user: 5, min_interactions_per_item: 5, ..dataset(format, path) };
    run(&core).unwrap()
}

fn sizes(counts: &Counts) -> (u64, u64, u64) {
    (counts.users, counts.items, counts.interactions)
}

fn training_examples(outcome: &Outcome) -> u64 {
    TrainingPrefixes::new(outcome.users().map(|u| training_items(&u.items).len())).len()
}

#[test]
fn movielens_has_its_published_size() {
    let Some(path) = folder("MLLM4REC_MOVIELENS", "ml-latest-small") else { return };
    let outcome = five_core(Format::Movielens, &path);
    assert_eq!(sizes(&outcome.counts), (610, 3_650, 90_274));
    assert_eq!(outcome.users().count(), 610);
    assert_eq!(outcome.users().map(|u| u.items.len()).sum::<usize>(), 90_274);
    assert_eq!(training_examples(&outcome), 88_444);
    assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
    assert_eq!(outcome.counts.rows, 100_836);

    let item = |id: &str| outcome.items.iter().find(|i| i.item_id == id).unwrap();
    assert_eq!(item("2571").title, "The Matrix (1999)");
    assert_eq!(item("2571").attributes, r#"{"genres":["Action","Sci-Fi","Thriller"]}"#);
    assert_eq!(item("6").title, "Heat (1995)");
    assert!(outcome.items.iter().all(|i| !i.title.contains('\u{fffd}') && !i.title.contains("Ã")));
    assert!(outcome.items.is_sorted_by(|a, b| a.item_id < b.item_id));
    assert!(outcome.users().is_sorted_by(|a, b| a.user_id < b.user_id));
    for user in outcome.users() {
        let keys: Vec<_> = user.times.iter().zip(&user.items).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "user {} is ordered by time, then by item", user.user_id);
    }
}

#[test]
fn beauty_sequences_have_their_published_size() {
    let Some(path) = folder("MLLM4REC_BEAUTY", "amazon-beauty") else { return };
    let outcome = five_core(Format::Sequences, &path);
    assert_eq!(sizes(&outcome.counts), (22_363, 12_101, 198_502));
    assert_eq!(outcome.shards.len(), 6);
    assert_eq!(training_examples(&outcome), 131_413);
    assert_eq!(outcome.counts.untitled_items, 7);
    assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
    let first = outcome.users().find(|u| u.user_id == "A1YJEY40YUW4SE").unwrap();
    assert_eq!(first.items, ["B004756YJA", "B004ZT0SSG", "B0020YLEYK", "7806397051", "B002WLWX82"]);
}
