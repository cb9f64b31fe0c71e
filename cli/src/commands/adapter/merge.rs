//! `mllm4rec adapter merge`: base and adapter in one checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coordinator::{base_digests, differing_file};
use data::artifact::InputDigests;
use model::ranker::{Merge, Merged};

use super::{CALIBRATION_FILE, Draft, Found, read};
use crate::args::AdapterMerge;
use crate::exit;
use crate::terminal::print;

/// Writes the merged checkpoint.
pub(super) async fn run(args: AdapterMerge) -> Result<u8> {
    let draft = Draft::new(&args.out)?;
    let found = read(&args.which, &args.reach).await?;
    let base = args.base.clone().unwrap_or_else(|| PathBuf::from(&found.adapter.base));
    if !base.is_dir() {
        let what = format!("there is no folder {} with the base: say where it is with --base", base.display());
        return Err(exit::BadRequest(what).into());
    }
    if !args.any_base {
        check_base(&base, &found).await?;
    }
    let merge = Merge { as_trained: args.as_trained, dtype: args.dtype.map(super::Float::dtype) };
    let merged = merge.write(&base, &found.adapter, draft.path()).map_err(|e| exit::Lasting(e.to_string()))?;
    if let Some(fitted) = &found.calibration {
        let path = draft.path().join(CALIBRATION_FILE);
        std::fs::write(&path, fitted).with_context(|| format!("cannot write {}", path.display()))?;
    }
    draft.finish()?;
    print(format_args!(
        "{}: {} tensors, {} of them updated by {}; {} files",
        args.out.display(),
        merged.tensors,
        merged.updated,
        found.place,
        merged.files.len()
    ));
    print(format_args!("{}", kept(&merged)));
    Ok(exit::DONE)
}

/// How much of the updates is left in the type of the checkpoint.
fn kept(merged: &Merged) -> String {
    let Merged { weight_norm, update_norm, rounding_norm, .. } = *merged;
    if update_norm == 0.0 {
        return "the updates are zero: nothing has changed".to_owned();
    }
    let mut words = format!(
        "the updates are {:.2} % of the weights that they change; rounding to the checkpoint's type changes them by {:.2} % of their size",
        100.0 * update_norm / weight_norm,
        100.0 * rounding_norm / update_norm
    );
    if rounding_norm > SMALL * update_norm {
        words.push_str(
            "\nthat is a large part of what was learnt: --dtype f32 keeps it, or export the adapter and leave it apart",
        );
    }
    words
}

/// Rounding that moves an update by more than this share is told.
const SMALL: f64 = 0.1;

/// Refuses another base than the one beside which the job has trained.
async fn check_base(base: &Path, found: &Found) -> Result<()> {
    if found.trained_with.is_empty() {
        tracing::warn!(base = %base.display(), named = found.adapter.base, "an adapter in a folder does not tell whether this is its base");
        return Ok(());
    }
    tracing::info!(base = %base.display(), "comparing the base with the one that the job has read");
    let given = base_digests("--base", &base.to_string_lossy(), &mut InputDigests::forgetful()).await;
    let given = given.map_err(|e| exit::BadRequest(format!("{e}; --any-base merges without comparing")))?;
    let Some(file) = differing_file(&given, &found.trained_with) else { return Ok(()) };
    let what = format!(
        "{} is another base than the one that {} was trained beside: they differ in {file}. Name that one with --base, or add \
         --any-base to merge all the same",
        base.display(),
        found.place
    );
    Err(exit::BadRequest(what).into())
}
