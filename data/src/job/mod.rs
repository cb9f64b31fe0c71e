//! The job file: TOML as people write it, checked once and as a whole.
//!
//! [`Job::parse`] reports every problem of a file together, each with file, line, key and what is allowed. Nothing behind
//! this module sees an unchecked value.

mod adopt;
mod literals;
mod problem;
mod publish;
mod reader;
mod sections;
mod settings;
mod stage;
mod sweep;
#[cfg(test)]
mod tests;

pub use adopt::ModelSection;
pub use literals::{MaxRejected, parse_bytes};
pub use problem::{Problem, nearest};
pub use publish::{Fill, Place};
pub use sections::{
    Blend, CandidateOrder, Captions, CaptionsFrom, Cluster, Columns, Dataset, Fetch, Format, Labels, Limits, Lora,
    MicroBatch, ModelFrom, Negatives, Output, Precision, Quantize, Ranker, RankerPrecision, Retriever, Trainable,
    Transparency,
};
pub use stage::{Split, Stage, UnknownName};
pub use sweep::{Sweep, SweptKey, Trial, label, plain};

use reader::{Section, Source};
use sections::earlier_job;

use crate::{Error, Result};

/// The only version of the job file so far.
pub const SCHEMA_VERSION: u32 = 1;

/// A checked job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The name; with the digests of its stages it makes the job id.
    pub name: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// The stages to run, in order.
    pub stages: Vec<Stage>,
    /// The splits to retrieve, rank and evaluate.
    pub splits: Vec<Split>,
    /// The job whose rows are copied where nothing has changed since.
    pub since: Option<Since>,
    /// `[output]`
    pub output: Output,
    /// `[limits]`
    pub limits: Limits,
    /// `[dataset]`
    pub dataset: Dataset,
    /// `[captions]`
    pub captions: Captions,
    /// `[retriever]`
    pub retriever: Retriever,
    /// `[ranker]`
    pub ranker: Ranker,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[sweep]`
    pub sweep: Sweep,
    merged: toml::Table,
}

impl Job {
    /// Parses the text of a job file, with overrides of the form `a.b=c` on top.
    ///
    /// # Errors
    /// [`Error::Job`] with every problem that was found.
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self> {
        let source = Source::parse(file, text, overrides);
        if source.is_broken() {
            // Whatever else is wrong cannot be told from a text that is no TOML.
            return Err(Error::Job(source.into_problems()));
        }
        let job = Self::read(&source);
        let merged = source.table().clone();
        let problems = source.into_problems();
        if problems.is_empty() { Ok(Self { merged, ..job }) } else { Err(Error::Job(problems)) }
    }

    /// The job as TOML, overrides included: parsing it again gives the same job.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.merged.to_string()
    }

    /// Whether a stage is to run.
    #[must_use]
    pub fn runs(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }

    /// Puts the text of the prompt template in the place of its path, so that the job needs no file beside it.
    pub fn inline_template(&mut self, text: String) {
        if let Some(toml::Value::Table(ranker)) = self.merged.get_mut("ranker") {
            ranker.insert("template".to_owned(), toml::Value::String(text.clone()));
        }
        self.ranker.template = text;
    }

    fn read(source: &Source) -> Self {
        let mut root = source.root();
        let version = root.get("schema_version", 0_u32);
        if version != SCHEMA_VERSION {
            root.report("schema_version", format!("is {version}, this build reads {SCHEMA_VERSION}"));
        }
        let name: String = root.required("name", "a short name for the job, for example name = \"movielens\"");
        if root.is_empty_string("name") || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            root.report("name", format!("is `{name}`, allowed are letters, digits, `-`, `_` and `.`"));
        }
        let named: Vec<Stage> = Stage::named().collect();
        let stages: Vec<(&str, Stage)> = named.iter().map(|s| (s.as_str(), *s)).collect();
        let splits: Vec<(&str, Split)> =
            Split::ALL.iter().filter(|s| **s != Split::Train).map(|s| (s.as_str(), *s)).collect();
        let all_stages = root.is_absent("stages");
        let mut chosen = root.choices("stages", &named, &stages);
        chosen.sort_unstable();
        chosen.dedup();
        let mut held = root.choices("splits", &[Split::Validation, Split::Test], &splits);
        held.sort_unstable();
        held.dedup();
        let mut job = Self {
            name,
            seed: root.number("seed", 42, 0..=i64::MAX as u64),
            stages: chosen,
            splits: held,
            since: Since::read(&mut root),
            output: Output::read(root.section("output")),
            limits: Limits::read(root.section("limits")),
            dataset: Dataset::read(root.section("dataset")),
            captions: Captions::read(root.section("captions")),
            retriever: Retriever::read(root.section("retriever")),
            ranker: Ranker::read(root.section("ranker")),
            cluster: Cluster::read(root.section("cluster")),
            sweep: Sweep::default(),
            merged: toml::Table::new(),
        };
        let grid = root.optional::<toml::Table>("sweep");
        if all_stages {
            job.stages.retain(|stage| job.retriever.from.is_training() || *stage != Stage::TrainRetriever);
            job.stages.retain(|stage| job.ranker.from.is_training() || *stage != Stage::TrainRanker);
        }
        job.check_stages(source);
        job.check_models(source);
        root.finish();
        if job.runs(Stage::Caption) && job.captions.from == CaptionsFrom::Blip2 {
            job.stages.push(Stage::Pictures);
            job.stages.sort_unstable();
        }
        if let Some(grid) = grid {
            job.sweep = Sweep::read(&grid, source, &job);
            job.check_lift(source);
        }
        job
    }

    /// A gate in front of each trial would fail the job for one that is not chosen.
    fn check_lift(&self, source: &Source) {
        if self.ranker.require_lift && self.sweep.trials(ModelSection::Ranker) > 0 {
            let why =
                "would be asked of every trial of the sweep: leave it out, and train the choice's settings with it";
            source.report("ranker.require_lift", why);
        }
    }

    fn check_stages(&self, source: &Source) {
        if self.stages.is_empty() {
            source.report("stages", "is empty, name at least one stage");
        }
        if self.output.publish.is_some() && !self.runs(Stage::Retrieve) && !self.stages.is_empty() {
            source.report("output.publish", "has nothing to copy: `stages` has neither `retrieve` nor `rank`");
        }
        if self.splits.is_empty() {
            source.report("splits", "is empty, allowed are validation, test and all");
        }
        for stage in &self.stages {
            for needed in self.needs(*stage) {
                if !self.runs(*needed) {
                    let elsewhere = match needed {
                        Stage::TrainRetriever => "; a finished one is named with retriever.from = \"job:<id>\"",
                        Stage::TrainRanker => "; a finished one is named with ranker.from = \"job:<id>\"",
                        _ => "",
                    };
                    let message = format!("`{stage}` needs `{needed}`, which is not in the list{elsewhere}");
                    source.report("stages", message);
                }
            }
        }
        if self.since.is_some() && !self.runs(Stage::Retrieve) {
            source.report("since", "needs `retrieve` in `stages`: there is nothing to copy otherwise");
        }
    }

    fn check_models(&self, source: &Source) {
        let finished = [
            (Stage::TrainRetriever, "retriever.from", &self.retriever.from),
            (Stage::TrainRanker, "ranker.from", &self.ranker.from),
        ];
        for (stage, key, from) in finished {
            if self.runs(stage) && !from.is_training() {
                source.report(
                    key,
                    format!("names a finished model, but `{stage}` is in `stages`: leave one of them out"),
                );
            }
        }
        let in_folder = self.runs(Stage::Rank) && self.ranker.from.folder().is_some();
        if (self.runs(Stage::TrainRanker) || in_folder) && self.ranker.base.is_empty() {
            source.report("ranker.base", "is missing: the folder of a Llama checkpoint in HF layout, or leave train_ranker and rank out of `stages`");
        }
        // The labels of an earlier job's ranker are not known yet.
        if let (Some(message), None) = (self.too_many_candidates(), self.ranker.from.job()) {
            source.report("retriever.candidates", message);
        }
    }

    /// Candidates that a prompt of the ranker shows at most.
    #[must_use]
    pub fn shown_candidates(&self) -> u32 {
        self.ranker.shown(self.retriever.candidates)
    }

    /// What to say if the ranker has fewer labels than a prompt shows candidates, or a final has no place for each heat.
    fn too_many_candidates(&self) -> Option<String> {
        let (candidates, shown, labels) = (self.retriever.candidates, self.shown_candidates(), self.ranker.labels);
        if !self.runs(Stage::TrainRanker) && !self.runs(Stage::Rank) {
            return None;
        }
        let most = labels.max_candidates();
        if shown > most && self.ranker.window > 0 {
            let (window, labels) = (self.ranker.window, labels.as_str());
            return Some(format!(
                "are shown {window} at a time (ranker.window), but ranker.labels = \"{labels}\" has labels for {most}: narrow the window"
            ));
        }
        if shown > most {
            let window = (2..=most).find(|window| window * window >= candidates).map(|least| least.max(most.min(20)));
            let heats = window.map(|window| format!("rank them in heats and a final with ranker.window = {window}"));
            let numbers = (labels == Labels::Letters)
                .then(|| "set ranker.labels = \"numbers\", if the base's tokenizer has such numbers whole".to_owned());
            let ways =
                heats.into_iter().chain(["lower it".to_owned()]).chain(numbers).collect::<Vec<_>>().join(", or ");
            return Some(format!(
                "is {candidates}, but ranker.labels = \"{}\" has labels for {most}: {ways}",
                labels.as_str()
            ));
        }
        (candidates.div_ceil(shown) > shown).then(|| {
            format!(
                "is {candidates}, but ranker.window = {shown} has one final for at most {} of them: lower it or widen the window",
                shown * shown
            )
        })
    }

    /// The stages whose output a stage reads, as far as it does not come from elsewhere.
    fn needs(&self, stage: Stage) -> &'static [Stage] {
        match stage {
            Stage::Prepare => &[],
            Stage::Pictures | Stage::Caption | Stage::TrainRetriever => &[Stage::Prepare],
            Stage::Retrieve if self.retriever.from.is_training() => &[Stage::Prepare, Stage::TrainRetriever],
            Stage::Retrieve => &[Stage::Prepare],
            Stage::TrainRanker => &[Stage::Prepare, Stage::Caption, Stage::Retrieve],
            Stage::Rank if self.ranker.from.is_training() => &[Stage::TrainRanker],
            Stage::Rank => &[Stage::Prepare, Stage::Caption, Stage::Retrieve],
            Stage::Evaluate => &[Stage::Retrieve],
        }
    }
}

/// `since`: an earlier job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// That of an id or a name.
    Job(String),
    /// The last one of this job's own name that has finished what this one is to do, if there is one.
    Last,
}

impl Since {
    fn read(root: &mut Section<'_>) -> Option<Self> {
        let text: String = root.optional("since")?;
        match (text.as_str(), earlier_job(&text)) {
            ("last", _) => Some(Self::Last),
            (_, Some(job)) if !job.is_empty() => Some(Self::Job(job.to_owned())),
            _ => {
                root.report("since", format!("is `{text}`, expected \"job:<id>\" or \"last\""));
                None
            }
        }
    }

    /// The id or name of the job, where one is named.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        match self {
            Self::Job(job) => Some(job),
            Self::Last => None,
        }
    }
}

impl reader::FromToml for toml::Table {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_table().cloned().ok_or_else(|| "expected a section".to_owned())
    }
}
