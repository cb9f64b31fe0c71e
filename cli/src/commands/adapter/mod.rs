//! `mllm4rec adapter`: what a ranker has learnt, apart from its base.

mod export;
mod inspect;
mod merge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coordinator::records;
use data::artifact::{Digest, model_prefix, read_spec};
use data::job::Stage;
use model::ranker::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter};
use model::weights::Dtype;

use crate::args::{AdapterAction, Float, WhichAdapter};
use crate::commands::outputs::DEFAULT_ROOT;
use crate::connection::Reach;
use crate::{exit, target};

/// Obeys one of the actions.
pub(crate) async fn run(action: AdapterAction) -> Result<u8> {
    match action {
        AdapterAction::Inspect(inspect) => inspect::run(inspect).await,
        AdapterAction::Export(export) => export::run(export).await,
        AdapterAction::Merge(merge) => merge::run(merge).await,
    }
}

impl Float {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            Self::F16 => Dtype::F16,
        }
    }
}

/// An adapter and where it was found.
struct Found {
    adapter: Adapter,
    place: String,
    /// What was fitted on validation, where that lies beside it.
    calibration: Option<Vec<u8>>,
    /// Digests of the files that it was trained with, the base's among them, where a job has trained it.
    trained_with: BTreeMap<String, Digest>,
}

/// What was fitted on validation.
const CALIBRATION_FILE: &str = "calibration.json";

/// Reads the adapter of a folder or of a job.
async fn read(which: &WhichAdapter, reach: &Reach) -> Result<Found> {
    let folder = Path::new(&which.adapter);
    if folder.is_dir() {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (config, weights) = (file(ADAPTER_CONFIG_FILE)?, file(ADAPTER_WEIGHTS_FILE)?);
        let calibration = folder.join(CALIBRATION_FILE).exists().then(|| file(CALIBRATION_FILE)).transpose()?;
        return found(&config, &weights, folder.display().to_string(), calibration, BTreeMap::new());
    }
    let root = which.root.as_deref().or((!reach.is_given()).then_some(DEFAULT_ROOT));
    let store = target::store(root, reach).await?;
    let job = target::job_in(&store, &which.adapter).await?;
    let stages = records::stages(&store, &job).await?;
    let trained = stages.iter().find(|s| s.is(Stage::TrainRanker, None));
    let trained = trained.ok_or_else(|| exit::BadRequest(format!("job {job} trains no ranker of its own")))?;
    let prefix = model_prefix(Stage::TrainRanker, &trained.digest);
    let config = format!("{prefix}/{ADAPTER_CONFIG_FILE}");
    if !store.exists(&config).await? {
        let what = format!("job {job} has no adapter: its ranker is not trained yet, or was trained as a whole");
        return Err(exit::BadRequest(what).into());
    }
    let weights = store.get(&format!("{prefix}/{ADAPTER_WEIGHTS_FILE}")).await?;
    let fitted = format!("{prefix}/{CALIBRATION_FILE}");
    let calibration = if store.exists(&fitted).await? { Some(store.get(&fitted).await?.to_vec()) } else { None };
    let trained_with = read_spec(&store, &trained.artifact()).await?.map(|spec| spec.inputs).unwrap_or_default();
    found(&store.get(&config).await?, &weights, store.name(&prefix), calibration, trained_with)
}

fn found(
    config: &[u8],
    weights: &[u8],
    place: String,
    calibration: Option<Vec<u8>>,
    trained_with: BTreeMap<String, Digest>,
) -> Result<Found> {
    let config = String::from_utf8_lossy(config);
    let adapter = Adapter::from_bytes(&config, weights).map_err(|e| exit::Lasting(format!("{place}: {e}")))?;
    Ok(Found { adapter, place, calibration, trained_with })
}

/// A new folder that appears as a whole: what is written goes to a draft beside it.
struct Draft {
    draft: tempfile::TempDir,
    to: PathBuf,
}

impl Draft {
    fn new(to: &Path) -> Result<Self> {
        if to.is_file() || to.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(exit::BadRequest(format!("{} is there already; name a new folder", to.display())).into());
        }
        let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(beside).with_context(|| format!("cannot make {}", beside.display()))?;
        let draft = tempfile::Builder::new().prefix(".adapter-").tempdir_in(beside);
        Ok(Self { draft: draft.with_context(|| format!("cannot write to {}", beside.display()))?, to: to.to_owned() })
    }

    fn path(&self) -> &Path {
        self.draft.path()
    }

    fn finish(self) -> Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Drafts are private, folders are not.
            std::fs::set_permissions(self.draft.path(), std::fs::Permissions::from_mode(0o755))?;
        }
        std::fs::rename(self.draft.path(), &self.to).with_context(|| format!("cannot make {}", self.to.display()))?;
        // It has another name now, and nothing of it is to be removed.
        let _ = self.draft.keep();
        Ok(())
    }
}
