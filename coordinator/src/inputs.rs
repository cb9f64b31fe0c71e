//! The user's own files that a job reads, by content.

use std::collections::BTreeMap;
use std::path::Path;

use data::artifact::{Digest, InputDigests};
use data::job::{CaptionsFrom, Job, Stage};

use crate::{Error, Result};

/// Digests of the files that a job names, by role.
#[derive(Clone, Debug, Default)]
pub struct InputFiles {
    /// The files of `dataset.path`.
    pub dataset: BTreeMap<String, Digest>,
    /// The file of `captions.table`.
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
        if job.runs(Stage::TrainRanker) {
            files.base = base_files(Path::new(&job.ranker.base), known).await?;
        }
        Ok(files)
    }
}

/// Refuses a folder that is no checkpoint in HF layout.
///
/// # Errors
/// [`data::Error::Read`] naming the folder and what it lacks.
pub fn check_layout(base: &Path) -> Result<()> {
    std::fs::read_dir(base).map_err(|e| unreadable(base, &e.to_string()))?;
    let missing = ["config.json", "tokenizer.json"].into_iter().find(|name| !base.join(name).is_file());
    missing.map_or(Ok(()), |name| Err(unreadable(base, &format!("it has no {name}"))))
}

/// The files of a checkpoint in HF layout.
async fn base_files(folder: &Path, known: &mut InputDigests) -> Result<BTreeMap<String, Digest>> {
    check_layout(folder)?;
    let listing = std::fs::read_dir(folder).map_err(|e| unreadable(folder, &e.to_string()))?;
    let mut files = BTreeMap::new();
    for entry in listing {
        let entry = entry.map_err(|e| unreadable(folder, &e.to_string()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let matters = name.ends_with(".safetensors")
            || name == "config.json"
            || name == "tokenizer.json"
            || name.ends_with(".index.json");
        if matters {
            files.insert(format!("base:{name}"), known.digest(&entry.path().to_string_lossy()).await?);
        }
    }
    Ok(files)
}

fn unreadable(folder: &Path, reason: &str) -> Error {
    Error::Data(data::Error::Read {
        path: folder.display().to_string(),
        reason: format!(
            "{reason}; ranker.base must be the folder of a checkpoint in HF layout (config.json, *.safetensors, tokenizer.json); a relative path is taken from where the command runs"
        ),
    })
}
