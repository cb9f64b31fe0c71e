//! Writes of a local store.
//!
//! Readers of a table take a folder as a whole, so nothing unfinished may ever stand in it: a file is written and
//! synced in a staging folder of the same file system and then linked under its name in one step, which fails if the
//! name is taken. Reading, listing and deleting need no such care and go through `object_store`.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::Error as Failure;
use tempfile::{Builder, NamedTempFile};

/// Where files grow before they get their name: in the staging folder of a root, or, in a place that is the user's,
/// beside it, as `<name>#<digits>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staging {
    Control,
    Beside,
}

const STAGING: &str = "_control/v1/staging";

/// Runs file-system work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Writes a file in one step; an existing one is an error unless it is to be replaced.
pub(super) fn write(
    root: &Path,
    below: &str,
    bytes: &[u8],
    replace: bool,
    staging: Staging,
) -> object_store::Result<()> {
    let path = root.join(below);
    let folder = path.parent().unwrap_or(root);
    let staged = match staging {
        Staging::Control => stage(&root.join(STAGING), "object-", None, bytes),
        Staging::Beside => stage(folder, below.rsplit('/').next().unwrap_or(below), Some(unused_number()), bytes),
    };
    let written = staged.and_then(|staged| {
        fs::create_dir_all(folder)?;
        if replace { staged.persist(&path) } else { staged.persist_noclobber(&path) }.map_err(|e| e.error)?;
        sync_folder(folder)
    });
    written.map_err(|source| failure(source, &path))
}

/// Removes files named `…#1`, `…#2` …, the form in which `object_store` stages its own writes beside their target.
pub(super) fn sweep(root: &Path, below: &str) -> object_store::Result<Vec<String>> {
    let folder = root.join(below);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failure(e, &folder)),
    };
    let mut swept = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| failure(e, &folder))?.file_name().to_string_lossy().into_owned();
        if is_staged(&name) {
            fs::remove_file(folder.join(&name)).map_err(|e| failure(e, &folder.join(&name)))?;
            swept.push(name);
        }
    }
    swept.sort();
    Ok(swept)
}

fn is_staged(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.rsplit_once('#').is_some_and(|(_, n)| digits(n))
}

/// A number that no other writer of this machine uses now.
fn unused_number() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("#{}{:06}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes empty folders, the innermost first; one that gets a file meanwhile stays.
pub(super) fn prune(folder: &Path) -> object_store::Result<()> {
    let gone = |e: &io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(failure(e, folder)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failure(e, folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            prune(&entry.path())?;
        }
    }
    fs::remove_dir(folder).or_else(|e| if gone(&e) { Ok(()) } else { Err(failure(e, folder)) })
}

fn stage(folder: &Path, prefix: &str, number: Option<String>, bytes: &[u8]) -> io::Result<NamedTempFile> {
    fs::create_dir_all(folder)?;
    let mut builder = Builder::new();
    builder.prefix(prefix);
    if let Some(number) = &number {
        builder.suffix(number).rand_bytes(0);
    }
    #[cfg(unix)]
    {
        // As any other new file, subject to the user's umask; the default of a temporary file is private.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes the new name itself survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn failure(source: io::Error, path: &Path) -> Failure {
    let path = path.to_string_lossy().into_owned();
    match source.kind() {
        ErrorKind::AlreadyExists => Failure::AlreadyExists { path, source: source.into() },
        _ => Failure::Generic { store: "LocalFileSystem", source: source.into() },
    }
}
