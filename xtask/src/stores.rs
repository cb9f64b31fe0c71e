//! The servers that stand for cloud stores in tests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::python;

/// An exact version: a new release is a change here.
const AZURITE: &str = "azurite@3.35.0";

/// Azurite's package: the one that `MLLM4REC_AZURITE` names, or one of our own. Says so if there is none.
pub(crate) fn azurite() -> Option<OsString> {
    if let Some(folder) = std::env::var_os("MLLM4REC_AZURITE") {
        return Some(folder);
    }
    match installed() {
        Ok(folder) => Some(folder.into_os_string()),
        Err(e) => {
            println!("no {AZURITE}: {e:#}\ntests that need it will be SKIPPED");
            None
        }
    }
}

/// Installs the package once, and again for another version.
fn installed() -> Result<PathBuf> {
    let folder = python::kept()?.join("azurite");
    let package = folder.join("node_modules/azurite");
    let note = folder.join("installed.txt");
    if std::fs::read_to_string(&note).is_ok_and(|version| version == AZURITE) {
        return Ok(package);
    }
    println!("installing {AZURITE} in {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(&folder).arg(AZURITE);
    python::succeed(&mut npm)?;
    std::fs::write(&note, AZURITE)?;
    Ok(package)
}
