//! Recall, MRR and NDCG against figures that an independent script computed from the same scores.

use std::fs;
use std::path::Path;

use data::metrics::{Figure, Rank, measure, retrieved, within};
use safetensors::SafeTensors;
use serde_json::Value;

/// Differences beyond the last digits of 64-bit floats are errors of definition.
const TOLERANCE: f64 = 1e-9;

#[test]
fn means_over_users_match_the_definition() {
    let Some(folder) = crate::fixtures::folder("metrics") else { return };
    let golden: Value = serde_json::from_slice(&fs::read(folder.join("metrics.json")).unwrap()).unwrap();
    let case = Case::read(&folder, &golden);

    let retriever = measure(&case.retriever, &case.ks, 1);
    compare(&retriever, &golden["full"]);
    compare(&measure(&case.of_subset(true), &case.ks, 1), &golden["retrieval_subset"]);
    compare(&measure(&case.of_subset(false), &case.ks, 1), &golden["non_retrieval"]);
    assert_eq!(within(&case.retriever, case.candidates).iter().flatten().count(), case.subset.len());

    let subset = measure(&retrieved(&case.ranker), &case.rerank_ks, 1);
    compare(&subset, &golden["reranked_subset"]);
    compare(&measure(&case.ranker, &case.rerank_ks, 1), &golden["overall"]);
    assert_eq!(subset[0].users, golden["sizes"]["subset"].as_u64().unwrap());
}

#[test]
fn means_of_batch_means_are_another_figure() {
    let Some(folder) = crate::fixtures::folder("metrics") else { return };
    let golden: Value = serde_json::from_slice(&fs::read(folder.join("metrics.json")).unwrap()).unwrap();
    let case = Case::read(&folder, &golden);
    let ours = measure(&case.retriever, &[10], 1)[0].value;
    let theirs = golden["mean_of_batch_means"]["Recall@10"].as_f64().unwrap();
    assert!((ours - theirs).abs() > 0.01, "a short last batch weighs too much: {ours} and {theirs}");
}

/// The ranks that follow from the scores of the fixture.
struct Case {
    ks: Vec<u32>,
    rerank_ks: Vec<u32>,
    candidates: u32,
    /// Rank of every user's item in the whole catalogue.
    retriever: Vec<Rank>,
    /// Users whose item is among the candidates.
    subset: Vec<usize>,
    /// Rank after the ranker; a miss for all others.
    ranker: Vec<Rank>,
}

impl Case {
    fn read(folder: &Path, golden: &Value) -> Self {
        let bytes = fs::read(folder.join("metrics.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let retriever = ranks(&floats(&tensors, "scores"), &integers(&tensors, "labels"));
        let subset = integers(&tensors, "subset_users");
        let reranked = ranks(&floats(&tensors, "candidate_scores"), &integers(&tensors, "candidate_labels"));
        let mut ranker = vec![None; retriever.len()];
        for (&user, rank) in subset.iter().zip(reranked) {
            ranker[user] = rank;
        }
        let ks = |name: &str| serde_json::from_value(golden["config"][name].clone()).unwrap();
        Self {
            ks: ks("ks"),
            rerank_ks: ks("rerank_ks"),
            candidates: serde_json::from_value(golden["config"]["topk"].clone()).unwrap(),
            retriever,
            subset,
            ranker,
        }
    }

    fn of_subset(&self, inside: bool) -> Vec<Rank> {
        let users = self.retriever.iter().enumerate();
        users.filter(|(user, _)| self.subset.contains(user) == inside).map(|(_, rank)| *rank).collect()
    }
}

/// 1 + the number of scores that are strictly larger, row by row.
fn ranks(scores: &[f32], labels: &[usize]) -> Vec<Rank> {
    let columns = scores.len() / labels.len();
    let rank = |(row, &label): (&[f32], &usize)| Some(1 + row.iter().filter(|&&s| s > row[label]).count() as u32);
    scores.chunks(columns).zip(labels).map(rank).collect()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    tensors.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let wide = tensors.tensor(name).unwrap().data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    wide.map(|v| usize::try_from(v).unwrap()).collect()
}

/// Every figure of the golden file must be there and equal.
fn compare(figures: &[Figure], golden: &Value) {
    let golden = golden.as_object().unwrap();
    assert_eq!(figures.len(), golden.len());
    for figure in figures {
        let (name, value) = golden.iter().find(|(name, _)| name.eq_ignore_ascii_case(&figure.name())).unwrap();
        assert!((figure.value - value.as_f64().unwrap()).abs() < TOLERANCE, "{name}: {} and {value}", figure.value);
    }
}
