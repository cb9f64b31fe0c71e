//! `mllm4rec adapter export`: for PEFT.

use std::path::Path;

use anyhow::{Context, Result};
use coordinator::{base_digests, differing_file};
use data::artifact::InputDigests;
use model::ranker::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};

use super::{CALIBRATION_FILE, Draft, Found, read};
use crate::args::AdapterExport;
use crate::exit;
use crate::terminal::print;

/// Writes configuration and factors into a folder.
pub(super) async fn run(args: AdapterExport) -> Result<u8> {
    let draft = Draft::new(&args.out)?;
    let found = read(&args.which, &args.reach).await?;
    let base = match args.base.clone() {
        Some(base) => base,
        None => absolute(&found).await,
    };
    let files = found.adapter.files(&base, args.dtype.dtype())?;
    let fitted = found.calibration.map(|bytes| (CALIBRATION_FILE, bytes));
    for (name, bytes) in [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE].into_iter().zip(files).chain(fitted) {
        let path = draft.path().join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    draft.finish()?;
    let factors = found.adapter.factors();
    print(format_args!(
        "{}: {} factors, {} parameters, for the base {base}",
        args.out.display(),
        factors.len(),
        crate::progress::grouped(factors.elements() as u64)
    ));
    Ok(exit::DONE)
}

/// The base by a path that holds elsewhere too, if it is here; a name, or another folder of the same name, stays as it is.
async fn absolute(found: &Found) -> String {
    let base = &found.adapter.base;
    let there = Path::new(base).is_dir() && !found.trained_with.is_empty();
    let digests = match there {
        true => base_digests("--base", base, &mut InputDigests::forgetful()).await.ok(),
        false => None,
    };
    let same = digests.is_some_and(|given| differing_file(&given, &found.trained_with).is_none());
    let path = same.then(|| std::path::absolute(base).ok()).flatten();
    path.map_or_else(|| base.clone(), |path| path.display().to_string())
}
