//! `mllm4rec shop`: the demo's world for those who train its models.

use std::path::Path;

use anyhow::{Context, Result};

use crate::args::Shop as Args;
use crate::demo::{Settings, Shop};
use crate::exit;

/// Writes interactions, pictures and what the pictures show into a folder.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let shop = Shop::new(args.seed, &Settings::default());
    let pictures = args.out.join("pictures");
    std::fs::create_dir_all(&pictures).with_context(|| format!("cannot make the folder {}", pictures.display()))?;
    write(&args.out.join("interactions.csv"), shop.interactions_csv().as_bytes())?;
    for (id, png) in shop.pictures() {
        write(&pictures.join(format!("{id}.png")), &png)?;
    }
    // The last file: where it is, the others are complete.
    write(&args.out.join("truth.csv"), shop.truth_csv().as_bytes())?;
    Ok(exit::DONE)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
