//! Whether tests have executed every kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::step::Ended;
use crate::{root, target_folder};

/// The variable by which the emulator is asked for the names of what it runs.
pub(crate) const VARIABLE: &str = "MLLM4REC_EXECUTED";
const NAME: &str = "kernels executed";

/// An empty folder for these names.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = target_folder()?.join("executed-kernels");
    let _ = std::fs::remove_dir_all(&folder); // it may not be there yet
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Compares the names in the folder with the page of registers, which lists every kernel.
pub(crate) fn compare(folder: &Path) -> Ended {
    println!("\n── {NAME}");
    match missed(folder) {
        Ok((all, missed)) if all > 0 && missed.is_empty() => {
            println!("the emulator has run all {all} kernels");
            return Ended { name: NAME, passed: true, took: Duration::ZERO };
        }
        Ok((all, missed)) => println!("of {all} kernels no test has run {}", missed.join(", ")),
        Err(e) => println!("{e:#}"),
    }
    Ended::failed(NAME)
}

/// How many kernels there are, and those whose names are not in the folder.
fn missed(folder: &Path) -> Result<(usize, Vec<String>)> {
    let page = root().join("docs/results/gpu/registers.md");
    let page = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let all = listed(&page);
    Ok((all.len(), all.into_iter().filter(|name| !folder.join(name).exists()).collect()))
}

/// The kernels of the page as the emulator calls them: `nf4_few.few_8` for `| nf4/few | few_8 |`.
fn listed(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")).filter(|row| !row.starts_with("file"));
    let name = |row: &str| {
        let (file, rest) = row.split_once(" | ")?;
        Some(format!("{}.{}", file.replace('/', "_"), rest.split_once(" | ")?.0))
    };
    rows.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_read_from_the_page() {
        let page = "# Registers\n\n| file | kernel | sm_80 |\n|---|---|---|\n| gelu | forward | 30 |\n| nf4/few | few_8 | 1 |\n";
        assert_eq!(listed(page), ["gelu.forward", "nf4_few.few_8"]);
    }
}
