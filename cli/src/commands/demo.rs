//! placeholder
use anyhow::Result;
use crate::args::Demo;
pub(crate) async fn run(_args: Demo) -> Result<u8> { anyhow::bail!("not yet") }
