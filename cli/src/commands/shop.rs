//! `mllm4rec shop`: the demo's world for those who train its models.

use anyhow::Result;

use crate::args::Shop as Args;
use crate::demo::{Settings, Shop, put, write_shop};
use crate::exit;

/// Writes interactions, pictures and what the pictures show into a folder.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let shop = Shop::new(args.seed, &Settings::default());
    write_shop(&shop, &args.out)?;
    // The last file: where it is, the others are complete.
    put(&args.out.join("truth.csv"), shop.truth_csv().as_bytes())?;
    Ok(exit::DONE)
}
