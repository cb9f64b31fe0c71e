//! Machine code of kernels, kept between runs.
//!
//! A file is named after all that goes into its content: text, architecture and the compiler's version. Whoever is first writes
//! it aside and moves it into place, so that nobody reads half a file; a file that is damaged is made again. Without a folder to
//! write to, kernels are compiled in every run.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::compile::{OPTIONS, compile};
use super::libraries::Library;
use crate::Result;
use crate::cuda::{PRELUDE, Source};

/// The code of a file for an architecture.
pub(super) fn code(source: &Source, arch: &str) -> Result<Vec<u8>> {
    code_in(folder().as_deref(), source, arch)
}

fn code_in(folder: Option<&Path>, source: &Source, arch: &str) -> Result<Vec<u8>> {
    let path = folder.map(|folder| folder.join(format!("{}-{arch}-{:016x}.cubin", source.name, key(source, arch))));
    if let Some(code) = path.as_deref().and_then(read) {
        return Ok(code);
    }
    let code = compile(source, arch)?.code;
    if let Some(path) = path {
        // Without it the next run compiles again: no reason to fail.
        let _ = write(&path, &code);
    }
    Ok(code)
}

fn key(source: &Source, arch: &str) -> u64 {
    let compiler = Library::Nvrtc.open().ok().and_then(|found| found.version);
    hash(&(PRELUDE, source.text, arch, OPTIONS, compiler, env!("CARGO_PKG_VERSION")))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The user's folder for what can be made again.
fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
    Some(caches.join("mllm4rec").join("kernels"))
}

/// The code, if the file is whole: it ends with the hash of what comes before.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let code = bytes.len().checked_sub(8)?;
    let sum = u64::from_le_bytes(bytes[code..].try_into().ok()?);
    bytes.truncate(code);
    (hash(&bytes) == sum).then_some(bytes)
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let mut bytes = code.to_vec();
    bytes.extend(hash(&code.to_vec()).to_le_bytes());
    std::fs::write(&aside, bytes)?;
    std::fs::rename(&aside, path).inspect_err(|_| drop(std::fs::remove_file(&aside)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_whole_file_is_read_and_a_damaged_one_is_not() {
        let folder = std::env::temp_dir().join(format!("mllm4rec-kernels-{}", std::process::id()));
        let path = folder.join("twice-sm_80.cubin");
        assert_eq!(read(&path), None);
        write(&path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
        for damaged in [&b"codeX"[..], b"", b"co"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path), None);
        }
        write(&path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
