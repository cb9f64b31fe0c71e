//! Trials of a sweep, and jobs that share them.

use super::*;

fn trial(artifact: &ArtifactId, settings: &str) -> StageEntry {
    StageEntry { trial: Some(settings.to_owned()), ..entry(artifact, &[]) }
}

/// A sweep of two trials with its choice, submitted to a core that has a job of the first trial's settings already or not.
fn swept(shared: bool) -> (Core, [ArtifactId; 3]) {
    let [one, two, choice] = ["one", "two", "choice"].map(|name| artifact(Stage::TrainRetriever, name));
    let mut core = Core::new(Policy::default(), 1);
    if shared {
        core.handle(Event::Submitted { job: job("single"), stages: vec![entry(&one, &[])] }, at(0));
    }
    let stages = vec![trial(&one, "dropout=0.1"), trial(&two, "dropout=0.2"), entry(&choice, &[&one, &two])];
    core.handle(Event::Submitted { job: job("sweep"), stages }, at(0));
    for artifact in [&one, &two] {
        core.handle(Event::Opened { artifact: artifact.clone(), rows: vec![0], done: vec![] }, at(0));
    }
    (core, [one, two, choice])
}

#[test]
fn free_workers_take_a_trial_each_and_the_choice_waits_for_all() {
    let (mut core, [one, two, choice]) = swept(false);
    let leases = [1, 2].map(|worker| granted(&core.handle(joined(WorkerId(worker)), at(1))).clone());
    assert_eq!(leases.each_ref().map(|lease| lease.artifact.clone()), [one.clone(), two.clone()]);
    for (worker, lease) in [1, 2].into_iter().zip(&leases) {
        core.handle(Event::Said(WorkerId(worker), committed(lease.id, 0, 1)), at(2));
    }
    assert!(!core.handle(Event::Finished(one), at(3)).contains(&Action::Open(choice.clone())));
    assert_eq!(core.handle(Event::Finished(two), at(3)), [Action::Open(choice)]);
}

#[test]
fn a_trial_has_its_settings_in_the_status_of_its_sweep_alone() {
    let (core, [one, ..]) = swept(true);
    let settings =
        |name: &str| core.status(&job(name), at(1)).unwrap().stages.into_iter().map(|s| s.trial).collect::<Vec<_>>();
    assert_eq!(settings("single"), [None]);
    assert_eq!(settings("sweep"), [Some("dropout=0.1".to_owned()), Some("dropout=0.2".to_owned()), None]);
    assert_eq!(core.stage_of(&one), "train_retriever", "it is at work for the job that came first");
}

#[test]
fn a_trial_that_fails_is_named_by_its_settings() {
    let (mut core, _) = swept(false);
    granted(&core.handle(joined(WorkerId(1)), at(1)));
    let lease = granted(&core.handle(joined(WorkerId(2)), at(1))).id;
    let failed = FromWorker::Failed { lease, class: FailureClass::Fatal, reason: "the loss is NaN".into() };
    core.handle(Event::Said(WorkerId(2), failed), at(2));
    let status = core.status(&job("sweep"), at(3)).unwrap();
    assert_eq!(
        (status.state, status.reason.as_str()),
        (JobState::Failed, "train_retriever[dropout=0.2]: the loss is NaN")
    );
}
