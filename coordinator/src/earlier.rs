//! What a job takes from earlier jobs under the same root: models, captions, and rows that need not be computed again.

use std::collections::BTreeMap;

use data::artifact::{self, ArtifactId, Digest, Spec, role, sweep};
use data::job::{Job, ModelSection, Since, Split, Stage};
use data::store::Store;

use crate::records::{self, StageRecord};
use crate::{Error, Result};

/// The artifacts of earlier jobs that a job names.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Of `retriever.from`.
    pub retriever: Option<Digest>,
    /// Of `ranker.from`.
    pub ranker: Option<Digest>,
    /// The files of the base that the ranker was trained on.
    pub ranker_base: BTreeMap<String, Digest>,
    /// Of `captions.from`.
    pub captions: Option<Digest>,
    /// Of `since`, by stage and split.
    pub since: BTreeMap<(Stage, Split), Spec>,
}

impl Earlier {
    /// Finds everything that a job names, and completes the job with the settings of the models.
    ///
    /// # Errors
    /// [`Error::Earlier`] for a job that does not exist or has not finished what is asked of it; [`data::Error::Job`] for
    /// settings that contradict those of a model.
    pub async fn of(store: &Store, job: &mut Job) -> Result<Self> {
        pin(store, job).await?;
        let mut earlier = Self::default();
        earlier.find_models(store, job).await?;
        if let Some(id) = job.captions.from.job().filter(|_| job.runs(Stage::Caption)) {
            let named = Named { store, key: "captions.from", id };
            earlier.captions = Some(named.stage(Stage::Caption, None).await?.digest);
        }
        if let Some(id) = job.since.as_ref().and_then(Since::job) {
            let named = Named { store, key: "since", id };
            for (stage, split) in copied(job) {
                let artifact = named.stage(stage, Some(split)).await?;
                earlier.since.insert((stage, split), named.spec(&artifact).await?);
            }
        }
        Ok(earlier)
    }

    /// Finds the models alone, and completes the job with their settings.
    ///
    /// # Errors
    /// As [`Earlier::of`].
    pub async fn models(store: &Store, job: &mut Job) -> Result<Self> {
        pin(store, job).await?;
        let mut earlier = Self::default();
        earlier.find_models(store, job).await?;
        Ok(earlier)
    }

    async fn find_models(&mut self, store: &Store, job: &mut Job) -> Result<()> {
        let retriever = job.retriever.from.job().filter(|_| job.runs(Stage::Retrieve)).map(str::to_owned);
        if let Some(id) = retriever {
            let named = Named { store, key: "retriever.from", id: &id };
            self.retriever = Some(named.model(Stage::TrainRetriever, Stage::Retrieve).await?.digest);
            job.adopt(ModelSection::Retriever, &named.job(ModelSection::Retriever).await?, &id)?;
        }
        let ranker = job.ranker.from.job().filter(|_| job.runs(Stage::Rank)).map(str::to_owned);
        if let Some(id) = ranker {
            let named = Named { store, key: "ranker.from", id: &id };
            let model = named.model(Stage::TrainRanker, Stage::Rank).await?;
            let inputs = named.spec(&model).await?.inputs;
            self.ranker_base = inputs.into_iter().filter(|(role, _)| role.starts_with("base:")).collect();
            self.ranker = Some(model.digest);
            job.adopt(ModelSection::Ranker, &named.job(ModelSection::Ranker).await?, &id)?;
        }
        Ok(())
    }
}

/// The stages of a job whose rows `since` copies.
fn copied(job: &Job) -> impl Iterator<Item = (Stage, Split)> + '_ {
    let stages = [Stage::Retrieve, Stage::Rank].into_iter().filter(|stage| job.runs(*stage));
    stages.flat_map(|stage| job.splits.iter().map(move |split| (stage, *split)))
}

/// Puts the id of a job in the place of its name, as long as only one job has it.
async fn pin(store: &Store, job: &mut Job) -> Result<()> {
    if job.since == Some(Since::Last) {
        match last(store, job).await? {
            Some(id) => job.name_earlier("since", &id)?,
            None => *job = job.without_since()?,
        }
    }
    let mut named: Vec<(&'static str, String)> = Vec::new();
    let keys = [
        ("since", job.since.as_ref().and_then(Since::job)),
        ("retriever.from", job.retriever.from.job()),
        ("ranker.from", job.ranker.from.job()),
        ("captions.from", job.captions.from.job()),
    ];
    named.extend(keys.into_iter().filter_map(|(key, name)| Some((key, name?.to_owned()))));
    if named.is_empty() {
        return Ok(());
    }
    let jobs = records::list(store).await?;
    for (key, name) in named {
        let of_this_name: Vec<&str> =
            jobs.iter().filter(|id| records::name_of(id) == Some(&name)).map(String::as_str).collect();
        match of_this_name.as_slice() {
            _ if jobs.contains(&name) => {}
            [] => {}
            [id] => job.name_earlier(key, id)?,
            several => {
                let reason = format!("several jobs are named {name}: {}; say which", several.join(", "));
                return Err(Error::Earlier { key, reason });
            }
        }
    }
    Ok(())
}

/// The newest job of this one's name of those that have finished what `since` copies.
async fn last(store: &Store, job: &Job) -> Result<Option<String>> {
    for id in records::newest_of_name(store, &job.name).await? {
        let named = Named { store, key: "since", id: &id };
        if named.has_finished(job).await? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// An earlier job as one key of the job file names it.
struct Named<'a> {
    store: &'a Store,
    key: &'static str,
    id: &'a str,
}

impl Named<'_> {
    fn wrong(&self, reason: &str) -> Error {
        Error::Earlier { key: self.key, reason: format!("job {} {reason}", self.id) }
    }

    async fn stages(&self) -> Result<Vec<StageRecord>> {
        match records::stages(self.store, self.id).await {
            Err(Error::NoJob { job, root, hint }) => {
                Err(Error::Earlier { key: self.key, reason: format!("there is no job {job} under {root}{hint}") })
            }
            found => found,
        }
    }

    /// The job as it ran; of one that has tried several settings for a model, with those that it has chosen.
    async fn job(&self, section: ModelSection) -> Result<Job> {
        let job = Job::parse(self.id, &records::job_toml(self.store, self.id).await?, &[])?;
        let trained = self.stages().await?.into_iter().find(|s| s.is(section.training(), None));
        match trained {
            Some(trained) => match sweep::choice(self.store, &trained.artifact()).await? {
                Some(choice) => Ok(job.with_settings(&choice.settings)?),
                None => Ok(job),
            },
            None => Ok(job),
        }
    }

    /// A finished stage.
    async fn stage(&self, stage: Stage, split: Option<Split>) -> Result<ArtifactId> {
        let stages = self.stages().await?;
        let Some(found) = stages.iter().find(|s| s.is(stage, split)) else {
            let has: Vec<String> = stages.iter().map(|s| role(s.stage, s.split)).collect();
            return Err(self.wrong(&format!("has no stage {}, it has {}", role(stage, split), has.join(", "))));
        };
        self.finished(found.artifact(), split).await
    }

    /// Whether it has finished what is copied of it for a job.
    async fn has_finished(&self, job: &Job) -> Result<bool> {
        for (stage, split) in copied(job) {
            match self.stage(stage, Some(split)).await {
                Ok(_) => {}
                Err(Error::Earlier { .. } | Error::Removed { .. }) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    async fn finished(&self, artifact: ArtifactId, split: Option<Split>) -> Result<ArtifactId> {
        if artifact::is_complete(self.store, &artifact).await? {
            return Ok(artifact);
        }
        Err(self.wrong(&format!("has not finished {}: run it to its end first", role(artifact.stage, split))))
    }

    /// The model that a job has trained, or has itself taken from another one.
    async fn model(&self, training: Stage, using: Stage) -> Result<ArtifactId> {
        let stages = self.stages().await?;
        if stages.iter().any(|s| s.stage == training) {
            return self.stage(training, None).await;
        }
        let Some(used) = stages.iter().find(|s| s.stage == using) else {
            return Err(self.wrong(&format!("has no stage {training}")));
        };
        match self.spec(&used.artifact()).await?.inputs.remove(&role(training, None)) {
            Some(digest) => self.finished(ArtifactId { stage: training, digest }, None).await,
            None => Err(self.wrong(&format!("has no stage {training}: its model is in a folder, name that folder"))),
        }
    }

    async fn spec(&self, artifact: &ArtifactId) -> Result<Spec> {
        let spec = artifact::read_spec(self.store, artifact).await?;
        spec.ok_or_else(|| self.wrong(&format!("has not begun {}: run it to its end first", artifact.stage)))
    }
}
