//! Writes of a local store.
//!
//! Readers of a table take a folder as a whole, so nothing unfinished may ever stand in it: a file is written and
//! synced in a staging folder of the same file system and then linked under its name in one step, which fails if the
//! name is taken. Reading, listing and deleting need no such care and go through `object_store`.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
/// What makes a folder a root of jobs.
const CONTROL: &str = "_control/v1";
/// A file that has not got its name in this time will not get it any more: whoever wrote it was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Runs file-system work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Makes a folder a root.
pub(super) fn make_root(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join(CONTROL))
}

/// Whether a folder is a root.
pub(super) fn is_root(folder: &Path) -> bool {
    folder.join(CONTROL).is_dir()
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
        make_folder(folder)?;
        if replace { staged.persist(&path) } else { staged.persist_noclobber(&path) }.map_err(|e| e.error)?;
        sync_folder(folder)
    });
    written.map_err(|source| failure(source, &path))
}

/// Removes what killed writers left: files named `…#1`, `…#2` … in a folder, the form in which `object_store` stages its
/// own writes beside their target, and old files in the staging folder.
pub(super) fn sweep(root: &Path, below: &str) -> object_store::Result<Vec<String>> {
    let staging = root.join(STAGING);
    let mut swept = sweep_staging(&staging).map_err(|e| failure(e, &staging))?;
    swept.extend(sweep_beside(&root.join(below))?);
    Ok(swept)
}

/// Ages are taken from the file system's own clock, which need not be this machine's: a new file says what time it is.
fn sweep_staging(staging: &Path) -> io::Result<Vec<String>> {
    if !staging.is_dir() {
        return Ok(Vec::new());
    }
    let now = NamedTempFile::new_in(staging)?.as_file().metadata()?.modified()?;
    let mut swept = Vec::new();
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        // It may have got its name meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        let old = now.duration_since(metadata.modified()?).is_ok_and(|age| age > ABANDONED);
        if metadata.is_file() && old && fs::remove_file(entry.path()).is_ok() {
            swept.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    swept.sort();
    Ok(swept)
}

fn sweep_beside(folder: &Path) -> object_store::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failure(e, folder)),
    };
    let mut swept = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| failure(e, folder))?.file_name().to_string_lossy().into_owned();
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

/// Makes a folder whose name survives a power cut, and those that it lies in.
fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder)?;
    // Each is an entry of the one above; others may be making the same ones, so none is left to them.
    missing.iter().filter_map(|made| made.parent()).try_for_each(sync_folder)
}

/// Makes the new names in a folder survive a power cut.
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
