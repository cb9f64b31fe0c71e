//! The user's own files that a job reads, by content.

use std::collections::BTreeMap;
use std::path::Path;

use data::artifact::{Digest, InputDigests, Spec, role};
use data::job::{CaptionsFrom, Job, Split, Stage};
use data::store::Store;

use crate::{Earlier, Error, Result};

/// What beside the weights decides over a ranker's base.
const BASE_FILES: [&str; 2] = ["config.json", "tokenizer.json"];
/// What the roles of a base's files begin with.
const BASE_ROLE: &str = "base:";
/// What beside the weights decides over a captioner.
const CAPTIONER_FILES: [&str; 4] =
    ["config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"];

/// The files of a retriever.
const RETRIEVER_FILES: [&str; 3] = ["config.json", "item_ids.json", "model.safetensors"];
/// The files of a ranker: an adapter, or a whole network.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const NETWORK_FILES: [&str; 2] = ["config.json", "model.safetensors"];
/// What was fitted on validation, for jobs that ask for it.
const CALIBRATION_FILE: &str = "calibration.json";

/// Digests of the files and of the earlier work that a job names, by role.
#[derive(Clone, Debug, Default)]
pub struct InputFiles {
    /// The files of `dataset.path`.
    pub dataset: BTreeMap<String, Digest>,
    /// The pictures of `captions.images`.
    pub pictures: BTreeMap<String, Digest>,
    /// The file of `captions.table`, those of `captions.model`, or the captions of an earlier job.
    pub captions: BTreeMap<String, Digest>,
    /// The files of `ranker.base`.
    pub base: BTreeMap<String, Digest>,
    /// The model of `retriever.from`, where this job trains none.
    pub retriever: BTreeMap<String, Digest>,
    /// The model of `ranker.from`, where this job trains none.
    pub ranker: BTreeMap<String, Digest>,
    /// The artifacts of `since`.
    pub since: BTreeMap<(Stage, Split), Spec>,
}

impl InputFiles {
    /// Hashes every file that a job names; what did not change since the last time is remembered.
    ///
    /// # Errors
    /// A file that is missing or cannot be read, by path and key.
    pub async fn of(job: &Job, earlier: Earlier, known: &mut InputDigests) -> Result<Self> {
        let mut files = Self { since: earlier.since, ..Self::default() };
        for file in data::prepare::input_files(&job.dataset)? {
            let digest = known.digest(&file.path.to_string_lossy()).await?;
            files.dataset.insert(format!("file:{}", file.name), digest);
        }
        if job.runs(Stage::Caption) && job.captions.from == CaptionsFrom::Table {
            // The ending says how the file is read.
            let ending = Path::new(&job.captions.table).extension().unwrap_or_default().to_string_lossy();
            files.captions.insert(format!("file:captions.{ending}"), known.digest(&job.captions.table).await?);
        }
        if job.runs(Stage::Pictures) {
            files.captions = checkpoint("captions.model", &job.captions.model, &CAPTIONER_FILES, known).await?;
            if !job.captions.images.is_empty() {
                files.pictures.insert("folder:images".to_owned(), known.folder(&job.captions.images).await?);
            }
        }
        if let Some(captions) = earlier.captions {
            files.captions.insert("captions".to_owned(), captions);
        }
        if let Some(retriever) = earlier.retriever {
            files.retriever.insert(role(Stage::TrainRetriever, None), retriever);
        } else if let Some(folder) = job.retriever.from.folder().filter(|_| job.runs(Stage::Retrieve)) {
            files.retriever = model("retriever.from", folder, &[&RETRIEVER_FILES], known).await?;
        }
        if job.runs(Stage::TrainRanker) || job.runs(Stage::Rank) {
            files.base = base_digests("ranker.base", &job.ranker.base, known).await?;
        }
        if let Some(ranker) = earlier.ranker {
            check_base(job, &files.base, &earlier.ranker_base)?;
            files.ranker.insert(role(Stage::TrainRanker, None), ranker);
        } else if let Some(folder) = job.ranker.from.folder().filter(|_| job.runs(Stage::Rank)) {
            let fitted: &[&str] = if job.ranker.is_fitted() { &[CALIBRATION_FILE] } else { &[] };
            let layouts = [ADAPTER_FILES, NETWORK_FILES].map(|files| [&files[..], fitted].concat());
            files.ranker = model("ranker.from", folder, &layouts.each_ref().map(Vec::as_slice), known).await?;
            files.ranker.extend(files.base.clone());
        }
        Ok(files)
    }
}

/// The files of a ranker's base that can change what it computes, by role; `key` is what names the folder.
///
/// # Errors
/// [`data::Error::Read`] for a folder that is no checkpoint in HF layout, or a file that cannot be read.
pub async fn base_digests(key: &str, folder: &str, known: &mut InputDigests) -> Result<BTreeMap<String, Digest>> {
    checkpoint(key, folder, &BASE_FILES, known).await
}

/// The first file of two bases that is not the same in both; inputs of other roles are passed over.
#[must_use]
pub fn differing_file<'a>(one: &'a BTreeMap<String, Digest>, other: &'a BTreeMap<String, Digest>) -> Option<&'a str> {
    let mut files = one.keys().chain(other.keys()).filter(|role| role.starts_with(BASE_ROLE));
    let differs = files.find(|file| one.get(*file) != other.get(*file));
    differs.map(|file| file.trim_start_matches(BASE_ROLE))
}

/// Refuses another base than the one that the ranker was trained on.
fn check_base(job: &Job, base: &BTreeMap<String, Digest>, trained: &BTreeMap<String, Digest>) -> Result<()> {
    let Some(differs) = differing_file(base, trained) else { return Ok(()) };
    let reason = format!(
        "job {} has trained its ranker on another base than ranker.base = {}: they differ in {differs}",
        job.ranker.from.job().unwrap_or_default(),
        job.ranker.base,
    );
    Err(Error::Earlier { key: "ranker.from", reason })
}

/// The files of a model in a folder or below a URL: the first of the layouts that is there whole.
async fn model(
    key: &'static str,
    folder: &str,
    layouts: &[&[&str]],
    known: &mut InputDigests,
) -> Result<BTreeMap<String, Digest>> {
    let wrong = |reason: String| Error::Earlier { key, reason: format!("{folder} is no model: {reason}") };
    let store = Store::open_existing(folder).map_err(|e| wrong(e.to_string()))?;
    let there: Vec<String> = store.list("").await?.into_iter().map(|entry| entry.path).collect();
    let whole = layouts.iter().find(|layout| layout.iter().all(|name| there.iter().any(|t| t == name)));
    let Some(layout) = whole else {
        let lacks = |layout: &&&[&str]| {
            let missing: Vec<&&str> = layout.iter().filter(|name| !there.iter().any(|t| t == **name)).collect();
            missing == [&CALIBRATION_FILE]
        };
        if layouts.iter().any(|layout| lacks(&layout)) {
            let reason = format!(
                "{folder} has no {CALIBRATION_FILE}, which ranker.blend and ranker.calibrate need: what was fitted when the ranker \
                 was trained; `adapter export` and `adapter merge` write it"
            );
            return Err(Error::Earlier { key, reason });
        }
        let expected: Vec<String> = layouts.iter().map(|layout| layout.join(" and ")).collect();
        return Err(wrong(format!("it needs {}", expected.join(", or "))));
    };
    let section = key.split('.').next().unwrap_or(key);
    let mut files = BTreeMap::new();
    for name in *layout {
        let digest = known.digest(&format!("{}/{name}", folder.trim_end_matches('/'))).await?;
        files.insert(format!("{section}:{name}"), digest);
    }
    Ok(files)
}

/// Refuses a folder that is no checkpoint in HF layout; `key` is the one of the job file that names it.
///
/// # Errors
/// [`data::Error::Read`] naming the folder and what it lacks.
pub fn check_layout(key: &str, folder: &Path) -> Result<()> {
    std::fs::read_dir(folder).map_err(|e| unreadable(key, folder, &e.to_string()))?;
    let missing = ["config.json", "tokenizer.json"].into_iter().find(|name| !folder.join(name).is_file());
    missing.map_or(Ok(()), |name| Err(unreadable(key, folder, &format!("it has no {name}"))))
}

/// The files of a checkpoint in HF layout that can change what it computes.
async fn checkpoint(
    key: &str,
    folder: &str,
    settings: &[&str],
    known: &mut InputDigests,
) -> Result<BTreeMap<String, Digest>> {
    let folder = Path::new(folder);
    check_layout(key, folder)?;
    let role = key.rsplit(['.', '-']).next().unwrap_or(key);
    let listing = std::fs::read_dir(folder).map_err(|e| unreadable(key, folder, &e.to_string()))?;
    let mut files = BTreeMap::new();
    for entry in listing {
        let entry = entry.map_err(|e| unreadable(key, folder, &e.to_string()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") || name.ends_with(".index.json") || settings.contains(&name.as_str()) {
            files.insert(format!("{role}:{name}"), known.digest(&entry.path().to_string_lossy()).await?);
        }
    }
    Ok(files)
}

fn unreadable(key: &str, folder: &Path, reason: &str) -> Error {
    Error::Data(data::Error::Read {
        path: folder.display().to_string(),
        reason: format!(
            "{reason}; {key} must be the folder of a checkpoint in HF layout (config.json, *.safetensors, tokenizer.json); a relative path is taken from where the command runs"
        ),
    })
}
