//! From a job to its stages, each named by the digest of all that can change its result.
//!
//! The digest of a stage covers its name and format version, the keys of the job file that it reads and the digests of
//! its inputs. Nothing has to run for a plan: two jobs that share a prefix of work share the digests.

use std::collections::BTreeMap;

use data::artifact::{ArtifactId, Digest, SINCE, Spec, role, sweep};
use data::job::{CaptionsFrom, Job, ModelFrom, ModelSection, Negatives, Split, Stage, Trial};
use proto::JobId;
use serde_json::{Value, json};

use crate::inputs::InputFiles;

#[cfg(test)]
mod tests;

/// A job as stages in the order in which they run.
#[derive(Clone, Debug)]
pub struct JobPlan {
    /// `<name>-<12 hex>` of the stage digests.
    pub id: JobId,
    /// The stages.
    pub stages: Vec<PlannedStage>,
}

/// One stage of a job, resolved.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// What it makes.
    pub artifact: ArtifactId,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// The settings of a trial of the sweep, for people. Nothing but the choice reads its output.
    pub trial: Option<String>,
    /// Everything that can change the result.
    pub spec: Spec,
    /// The artifacts that it reads.
    pub needs: Vec<ArtifactId>,
}

impl PlannedStage {
    /// Whether this is what others mean by a stage and a split: no trial is.
    #[must_use]
    pub fn is(&self, stage: Stage, split: Option<Split>) -> bool {
        self.artifact.stage == stage && self.split == split && self.trial.is_none()
    }
}

/// Raised when the meaning of a stage's output changes.
fn format_version(stage: Stage) -> u32 {
    match stage {
        Stage::Prepare
        | Stage::Pictures
        | Stage::Caption
        | Stage::TrainRetriever
        | Stage::Retrieve
        | Stage::Evaluate => 1,
        // Texts are cleaned, and a calibration lies beside the adapter.
        Stage::TrainRanker | Stage::Rank => 2,
    }
}

/// Plans a job over the files that it reads.
#[must_use]
pub fn plan(job: &Job, files: &InputFiles) -> JobPlan {
    let mut planner = Planner { job, files, stages: Vec::new() };
    planner.prepare();
    planner.pictures();
    planner.caption();
    planner.train_retriever();
    for split in retrieve_splits(job) {
        planner.retrieve(split);
    }
    planner.train_ranker();
    for split in &job.splits {
        planner.rank(*split);
    }
    planner.evaluate();
    let digests: Vec<&str> = planner.stages.iter().map(|s| s.artifact.digest.as_str()).collect();
    let id = JobId(format!("{}-{}", job.name, Digest::of_json(&json!(digests)).short()));
    JobPlan { id, stages: planner.stages }
}

/// The splits that need candidates: those asked for, and those that the ranker's training reads.
fn retrieve_splits(job: &Job) -> Vec<Split> {
    let mut splits = job.splits.clone();
    if job.runs(Stage::TrainRanker) {
        splits.push(Split::Validation);
        if negatives(job).any(|negatives| negatives != Negatives::Random) {
            splits.push(Split::Train);
        }
    }
    splits.sort_unstable();
    splits.dedup();
    splits
}

/// Those that the ranker's training uses, in one trial or another.
fn negatives(job: &Job) -> impl Iterator<Item = Negatives> {
    let trials = job.trials(ModelSection::Ranker);
    let own = trials.is_empty().then_some(job.ranker.negatives);
    own.into_iter().chain(trials.into_iter().map(|trial| trial.job.ranker.negatives))
}

struct Planner<'a> {
    job: &'a Job,
    files: &'a InputFiles,
    stages: Vec<PlannedStage>,
}

/// The inputs of a stage: role → digest, and which of them are artifacts of this job.
#[derive(Clone, Default)]
struct Inputs {
    digests: BTreeMap<String, Digest>,
    needs: Vec<ArtifactId>,
}

impl Planner<'_> {
    fn prepare(&mut self) {
        let inputs = Inputs { digests: self.files.dataset.clone(), needs: Vec::new() };
        self.add(Stage::Prepare, None, json!(self.job.dataset), inputs);
    }

    fn pictures(&mut self) {
        let mut inputs = self.inputs(&[(Stage::Prepare, None)]);
        inputs.digests.extend(self.files.pictures.clone());
        let c = &self.job.captions;
        let mut allowed = c.fetch.allow_hosts.clone();
        allowed.sort_unstable();
        let config = json!({
            "fetch": c.fetch.on.then(|| json!({"round": c.fetch.round, "allow_hosts": allowed})),
            "max_bytes": c.max_bytes,
            "placeholder_sha256": c.placeholder_sha256,
            "placeholder_share": c.placeholder_share,
        });
        self.add(Stage::Pictures, None, config, inputs);
    }

    fn caption(&mut self) {
        let mut inputs = self.inputs(&[(Stage::Prepare, None), (Stage::Pictures, None)]);
        inputs.digests.extend(self.files.captions.clone());
        let c = &self.job.captions;
        let mut config = json!({"from": c.from.as_str()});
        if c.from == CaptionsFrom::Blip2 {
            config = json!({
                "from": c.from.as_str(), "shard_items": c.shard_items, "captioner": c.captioner_keys(), "max_pixels": c.max_pixels,
            });
        }
        self.add(Stage::Caption, None, config, inputs);
    }

    fn train_retriever(&mut self) {
        self.train(ModelSection::Retriever, |planner, job| {
            let inputs = planner.inputs(&[(Stage::Prepare, None)]);
            (json!({"seed": job.seed, "retriever": job.retriever}), inputs)
        });
    }

    fn retrieve(&mut self, split: Split) {
        let mut inputs = self.inputs(&[(Stage::Prepare, None), (Stage::TrainRetriever, None)]);
        inputs.digests.extend(self.files.retriever.clone());
        let mut config = json!({"candidates": self.job.retriever.candidates});
        if split == Split::Train {
            config["examples"] = self.example_order();
        }
        self.add(Stage::Retrieve, Some(split), config, inputs);
    }

    fn train_ranker(&mut self) {
        self.train(ModelSection::Ranker, |planner, job| {
            let mut from =
                vec![(Stage::Prepare, None), (Stage::Caption, None), (Stage::Retrieve, Some(Split::Validation))];
            if job.ranker.negatives != Negatives::Random {
                from.push((Stage::Retrieve, Some(Split::Train)));
            }
            let mut inputs = planner.inputs(&from);
            inputs.digests.extend(planner.files.base.clone());
            (json!({"seed": job.seed, "candidates": job.retriever.candidates, "ranker": job.ranker}), inputs)
        });
    }

    /// The training of a model, or a training for each trial of the sweep and the choice behind them. `needed` says what a
    /// job's training depends on: a trial has the digest that it would have in a job of its own.
    fn train(&mut self, section: ModelSection, needed: impl Fn(&Self, &Job) -> (Value, Inputs)) {
        let stage = section.training();
        let trials = if self.job.runs(stage) { self.job.trials(section) } else { Vec::new() };
        if trials.is_empty() {
            let (config, inputs) = needed(self, self.job);
            return self.add(stage, None, config, inputs);
        }
        let mut all = Inputs::default();
        for (place, Trial { label, job, .. }) in trials.iter().enumerate() {
            let (config, inputs) = needed(self, job);
            // The choice stands for a training: who reads it looks at what that was made from.
            all.digests.extend(inputs.digests.clone());
            all.needs.extend(inputs.needs.clone());
            self.add(stage, None, config, inputs);
            let Some(made) = self.stages.last_mut() else { continue };
            made.trial = Some(label.clone());
            all.digests.insert(sweep::trial_role(place + 1), made.artifact.digest.clone());
            all.needs.push(made.artifact.clone());
        }
        all.needs.sort();
        all.needs.dedup();
        let settings: Vec<_> = trials.into_iter().map(|trial| trial.settings).collect();
        self.add(stage, None, sweep::config(&settings), all);
    }

    fn rank(&mut self, split: Split) {
        let from = [
            (Stage::Prepare, None),
            (Stage::Caption, None),
            (Stage::TrainRanker, None),
            (Stage::Retrieve, Some(split)),
        ];
        let mut inputs = self.inputs(&from);
        inputs.digests.extend(self.files.ranker.clone());
        // A ranker that a job has trained has its settings in the digest of the training.
        let mut config = match self.job.ranker.from {
            ModelFrom::Folder(_) => json!({"ranker": self.job.ranker.scoring_keys()}),
            _ => json!({}),
        };
        let ordering = self.job.ranker.ordering_keys();
        if ordering.as_object().is_some_and(|keys| !keys.is_empty()) {
            config["ordering"] = ordering;
        }
        self.add(Stage::Rank, Some(split), config, inputs);
    }

    fn evaluate(&mut self) {
        let targets: Vec<Split> = self.job.splits.iter().copied().filter(|s| s.has_target()).collect();
        if targets.is_empty() {
            return;
        }
        let mut from = vec![(Stage::Prepare, None)];
        for split in targets {
            from.push((Stage::Retrieve, Some(split)));
            from.push((Stage::Rank, Some(split)));
        }
        let inputs = self.inputs(&from);
        self.add(Stage::Evaluate, None, json!({"seed": self.job.seed}), inputs);
    }

    /// Which training prefixes the ranker will see, and in which order.
    fn example_order(&self) -> Value {
        let r = &self.job.ranker;
        json!({"seed": self.job.seed, "batch_size": r.batch_size, "max_epochs": r.max_epochs, "max_steps": r.max_steps})
    }

    /// The outputs of earlier stages, as far as this job runs them.
    fn inputs(&self, from: &[(Stage, Option<Split>)]) -> Inputs {
        let mut inputs = Inputs::default();
        for (stage, split) in from {
            let made = self.stages.iter().find(|s| s.is(*stage, *split));
            if let Some(made) = made {
                inputs.digests.insert(role(*stage, *split), made.artifact.digest.clone());
                inputs.needs.push(made.artifact.clone());
            }
        }
        inputs
    }

    /// What is made of a stage where rows of an earlier artifact may be copied: the same again if nothing has changed at all.
    fn since(&self, spec: &Spec, split: Split) -> Option<Spec> {
        let earlier = self.files.since.get(&(spec.stage, split))?;
        let mut before = earlier.clone();
        before.inputs.remove(SINCE);
        if before == *spec {
            return Some(earlier.clone());
        }
        let mut spec = spec.clone();
        spec.inputs.insert(SINCE.to_owned(), earlier.digest());
        Some(spec)
    }

    fn add(&mut self, stage: Stage, split: Option<Split>, config: Value, inputs: Inputs) {
        if !self.job.runs(stage) {
            return;
        }
        let spec = Spec { stage, split, format_version: format_version(stage), config, inputs: inputs.digests };
        let spec = split.and_then(|split| self.since(&spec, split)).unwrap_or(spec);
        let artifact = ArtifactId { stage, digest: spec.digest() };
        self.stages.push(PlannedStage { artifact, split, trial: None, spec, needs: inputs.needs });
    }
}
