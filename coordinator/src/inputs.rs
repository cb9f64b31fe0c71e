//! The user's own files that a job reads, by content.

use std::collections::BTreeMap;
use std::path::Path;

use data::artifact::{Digest, InputDigests};
use data::job::{CaptionsFrom, Job, Stage};

use crate::{Error, Result};

/// What beside the weights decides over a ranker's base.
const BASE_FILES: [&str; 2] = ["config.json", "tokenizer.json"];
/// What beside the weights decides over a captioner.
const CAPTIONER_FILES: [&str; 4] =
    ["config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"];

/// Digests of the files that a job names, by role.
#[derive(Clone, Debug, Default)]
pub struct InputFiles {
    /// The files of `dataset.path`.
    pub dataset: BTreeMap<String, Digest>,
    /// The pictures of `captions.images`.
    pub pictures: BTreeMap<String, Digest>,
    /// The file of `captions.table`, or those of `captions.model`.
    pub captions: BTreeMap<String, Digest>,
    /// The files of `ranker.base`.
    pub base: BTreeMap<String, Digest>,
}

impl InputFiles {
    /// Hashes every file that a job names; what did not change since the last time is remembered.
    ///
    /// # Errors
    /// A file that is missing or cannot be read, by path and key.
    pub async fn of(job: &Job, known: &mut InputDigests) -> Result<Self> {
        let mut files = Self::default();
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
        if job.runs(Stage::TrainRanker) {
            files.base = checkpoint("ranker.base", &job.ranker.base, &BASE_FILES, known).await?;
        }
        Ok(files)
    }
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
    let role = key.rsplit('.').next().unwrap_or(key);
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
