//! `mllm4rec adapter merge`: base and adapter in one checkpoint.

use std::path::PathBuf;

use anyhow::Result;
use model::ranker::Merge;

use super::{Draft, read};
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
    let merge = Merge { as_trained: args.as_trained, dtype: args.dtype.map(super::Float::dtype) };
    let merged = merge.write(&base, &found.adapter, draft.path()).map_err(|e| exit::Lasting(e.to_string()))?;
    draft.finish()?;
    print(format_args!(
        "{}: {} tensors, {} of them updated by {}; {} files",
        args.out.display(),
        merged.tensors,
        merged.updated,
        found.place,
        merged.files.len()
    ));
    Ok(exit::DONE)
}
