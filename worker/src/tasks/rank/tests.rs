#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use data::artifact::{self, ArtifactId, Attempt, Plan, Spec};

use super::*;
use crate::calibration::Calibration;
use crate::doubt::Doubt;
use crate::doubt::tests::{JOB, lease_of};

/// A lease over a ranking with these inputs.
async fn lease(store: &Store, inputs: &[(&str, &str)]) -> Context {
    let digest = |(role, text): &(&str, &str)| ((*role).to_owned(), Digest::of_bytes(text.as_bytes()));
    let inputs: BTreeMap<String, Digest> = inputs.iter().map(digest).collect();
    let config = serde_json::json!({});
    let spec = Spec { stage: Stage::Rank, split: Some(Split::Test), format_version: 1, config, inputs };
    let id = artifact::write_spec(store, &spec).await.unwrap();
    artifact::write_plan(store, &id, &Plan { shards: 3, input_parts: Vec::new(), outputs: Vec::new() }).await.unwrap();
    lease_of(store.clone(), &id, JOB, Doubt::default()).await
}

/// Another ranker under the digest of the one before: a device does not give the same bits twice, and a stage that was
/// removed is trained again.
async fn train(store: &Store, attempt: &str) {
    let id = ArtifactId { stage: Stage::TrainRanker, digest: Digest::of_bytes(b"ranker") };
    let plan = Plan { shards: 1, input_parts: Vec::new(), outputs: Vec::new() };
    std::fs::remove_dir_all(store.folder().unwrap().join("_control/v1/artifacts/train_ranker")).ok();
    let attempt = Attempt { shard: 0, id: attempt.to_owned(), ..Attempt::default() };
    artifact::commit_shard(store, &id, &plan, attempt).await.unwrap();
}

async fn name(store: &Store, inputs: &[(&str, &str)]) -> String {
    let cx = lease(store, inputs).await;
    tokio::task::spawn_blocking(move || identity(&cx).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_copy_of_a_checkpoint_is_named_by_all_that_decides_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().display().to_string()).unwrap();
    let trained = [("train_ranker", "ranker")];
    train(&store, "one").await;
    let first = name(&store, &trained).await;
    assert_eq!(name(&store, &trained).await, first);
    train(&store, "two").await;
    assert_ne!(name(&store, &trained).await, first, "it was trained again");

    let of_folder = |config| [("ranker:config.json", config), ("ranker:model.safetensors", "weights")];
    let given = name(&store, &of_folder("a config")).await;
    assert_eq!(name(&store, &of_folder("a config")).await, given);
    assert_ne!(name(&store, &of_folder("another")).await, given, "the same weights and another config");
}

fn candidates(scores: &[f32]) -> CandidateRow {
    let items = (0..scores.len()).map(|i| format!("i{i}")).collect();
    CandidateRow { user_id: "u".to_owned(), split: Split::Test, position: None, items, scores: scores.to_vec() }
}

#[test]
fn a_temperature_changes_probabilities_and_a_blend_the_order() {
    let row = candidates(&[3.0, 0.0, 0.0]);
    let fitted =
        Calibration { temperature: 2.0, blend: 0.9, blend_temperature: 3.0, users: 1, ndcg: [0.0; 3], nll: [0.0; 2] };
    let logits = [0.0, 1.0, 2.0];
    let with = |calibration, blends, calibrates| Ordering { calibration, blends, calibrates }.row(&row, &logits);
    let plain = with(None, false, false);
    let cooled = with(Some(fitted.clone()), false, true);
    assert_eq!((&plain.items, &plain.scores), (&cooled.items, &cooled.scores));
    assert_eq!(plain.items, ["i2", "i1", "i0"]);
    assert!(cooled.probabilities[0] < plain.probabilities[0]);
    assert!((cooled.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    let blended = with(Some(fitted.clone()), true, false);
    assert_eq!((blended.items[0].as_str(), blended.retriever_ranks[0]), ("i0", 1));
    let both = with(Some(fitted), true, true);
    assert_eq!((&both.items, &both.scores), (&blended.items, &blended.scores));
    assert!(both.probabilities[0] < blended.probabilities[0]);
}
