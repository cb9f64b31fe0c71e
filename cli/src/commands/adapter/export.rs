//! `mllm4rec adapter export`: for PEFT.

use anyhow::{Context, Result};
use model::ranker::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};

use super::{Draft, read};
use crate::args::AdapterExport;
use crate::exit;
use crate::terminal::print;

/// Writes configuration and factors into a folder.
pub(super) async fn run(args: AdapterExport) -> Result<u8> {
    let draft = Draft::new(&args.out)?;
    let found = read(&args.which, &args.reach).await?;
    let base = args.base.as_deref().unwrap_or(&found.adapter.base);
    let files = found.adapter.files(base, args.dtype.dtype())?;
    for (name, bytes) in [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE].into_iter().zip(files) {
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
