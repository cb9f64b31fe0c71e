//! `mllm4rec k8s`: manifests of a job's own machines.

mod render;

use anyhow::Result;

use crate::args::{K8s, K8sAction};
use crate::exit;
use crate::terminal::print;

/// Writes manifests to standard output.
pub(crate) fn run(args: &K8s) -> Result<u8> {
    match &args.action {
        K8sAction::Render(wish) => print(render::manifests(wish)?.trim_end()),
    }
    Ok(exit::DONE)
}
