#![allow(clippy::unwrap_used)]

use super::*;

const NIGHTLY: &str = "schema_version = 1\nname = \"night\"\nsplits = [\"all\"]\nstages = [\"prepare\", \"retrieve\"]\n\
    [dataset]\npath = \"/data\"\n[retriever]\nfrom = \"job:shop-0123456789ab\"\n";

/// The spec of the candidates of a night, over a dataset of some content.
fn night(data: &str, earlier: Option<&Spec>) -> Spec {
    let job = Job::parse("job", NIGHTLY, &[]).unwrap();
    let digest = |text: &str| Digest::of_bytes(text.as_bytes());
    let mut files = InputFiles::default();
    files.dataset.insert("file:ratings.csv".to_owned(), digest(data));
    files.retriever.insert("train_retriever".to_owned(), digest("the model"));
    files.since.extend(earlier.map(|spec| ((Stage::Retrieve, Split::All), spec.clone())));
    plan(&job, &files).stages.pop().unwrap().spec
}

#[test]
fn rows_that_are_copied_are_named_in_the_digest() {
    let (monday, tuesday) = (night("monday", None), night("tuesday", None));
    assert_eq!(monday.inputs["train_retriever"], Digest::of_bytes(b"the model"));
    let since = night("tuesday", Some(&monday));
    assert_eq!(since.inputs[SINCE], monday.digest());
    assert_ne!(since.digest(), tuesday.digest());
    assert_eq!(since.inputs.len(), tuesday.inputs.len() + 1);
}

#[test]
fn a_night_without_changes_is_the_one_before() {
    let monday = night("monday", None);
    assert_eq!(night("monday", Some(&monday)), monday);
    let tuesday = night("tuesday", Some(&monday));
    assert_eq!(night("tuesday", Some(&tuesday)), tuesday, "whatever that one was made from");
}

/// A job that trains both models, with more at its end.
const BOTH: &str = "schema_version = 1\nname = \"shop\"\nsplits = [\"test\"]\n[dataset]\npath = \"/data\"\n\
    [ranker]\nbase = \"/base\"\n";

fn planned(text: &str, sets: &[&str]) -> JobPlan {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let job = Job::parse("job", &format!("{BOTH}{text}"), &sets).unwrap();
    let mut files = InputFiles::default();
    files.dataset.insert("file:ratings.csv".to_owned(), Digest::of_bytes(b"data"));
    files.base.insert("base:config.json".to_owned(), Digest::of_bytes(b"base"));
    plan(&job, &files)
}

fn trials(plan: &JobPlan, stage: Stage) -> Vec<&PlannedStage> {
    plan.stages.iter().filter(|s| s.artifact.stage == stage && s.trial.is_some()).collect()
}

fn stage(plan: &JobPlan, stage: Stage, split: Option<Split>) -> &PlannedStage {
    plan.stages.iter().find(|s| s.is(stage, split)).unwrap()
}

const DROPOUTS: &str = "[sweep]\n\"retriever.dropout\" = [0.1, 0.3]\n";

#[test]
fn a_trial_is_the_training_of_a_job_with_its_settings() {
    let swept = planned(DROPOUTS, &[]);
    let found = trials(&swept, Stage::TrainRetriever);
    for (trial, dropout) in found.iter().zip(["0.1", "0.3"]) {
        let alone = planned("", &[&format!("retriever.dropout={dropout}")]);
        assert_eq!(trial.artifact, stage(&alone, Stage::TrainRetriever, None).artifact);
        assert_eq!(trial.trial.as_deref(), Some(format!("dropout={dropout}").as_str()));
        assert_eq!(stage(&swept, Stage::Prepare, None).artifact, stage(&alone, Stage::Prepare, None).artifact);
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn everything_behind_a_sweep_reads_the_choice() {
    let swept = planned(DROPOUTS, &[]);
    let choice = stage(&swept, Stage::TrainRetriever, None);
    let tried = trials(&swept, Stage::TrainRetriever);
    assert!(tried.iter().all(|trial| choice.needs.contains(&trial.artifact)));
    let named: Vec<ArtifactId> = sweep::trials_of(&choice.spec).unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(named.iter().eq(tried.iter().map(|trial| &trial.artifact)), "in the order of the grid");
    assert_eq!(choice.spec.inputs["prepare"], stage(&swept, Stage::Prepare, None).artifact.digest);
    for split in [Split::Validation, Split::Test] {
        let retrieve = stage(&swept, Stage::Retrieve, Some(split));
        assert_eq!(retrieve.spec.inputs["train_retriever"], choice.artifact.digest);
        assert!(retrieve.needs.contains(&choice.artifact));
        assert!(tried.iter().all(|trial| !retrieve.needs.contains(&trial.artifact)));
    }
    let more = planned("[sweep]\n\"retriever.dropout\" = [0.1, 0.3, 0.5]\n", &[]);
    assert_ne!(stage(&more, Stage::TrainRetriever, None).artifact, choice.artifact);
    assert_ne!(more.id, swept.id);
}

#[test]
fn the_trials_of_the_ranker_stand_behind_the_retriever_that_was_chosen() {
    let swept = planned(&format!("{DROPOUTS}\"ranker.negatives\" = [\"mixed\", \"random\"]\n"), &[]);
    let tried = trials(&swept, Stage::TrainRanker);
    assert_eq!((trials(&swept, Stage::TrainRetriever).len(), tried.len()), (2, 2));
    let train = &stage(&swept, Stage::Retrieve, Some(Split::Train)).artifact;
    let needs: Vec<bool> = tried.iter().map(|trial| trial.needs.contains(train)).collect();
    assert_eq!(needs, [true, false], "only one of them draws what is retrieved");
    let choice = stage(&swept, Stage::TrainRanker, None);
    assert_eq!(choice.spec.inputs["base:config.json"], Digest::of_bytes(b"base"));
    let rank = stage(&swept, Stage::Rank, Some(Split::Test));
    assert_eq!(rank.spec.inputs["train_ranker"], choice.artifact.digest);
}
