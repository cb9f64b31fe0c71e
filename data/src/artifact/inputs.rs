//! Digests of the user's own files.
//!
//! An input file counts by content. Hashing gigabytes on every start would be slow, so a digest is remembered with the
//! file's size and its ETag or time of change, and computed again when one of them is different.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Digest;
use crate::store::{Location, Store};
use crate::{Error, Result};

/// A file changed this shortly before is not remembered: it may change again under the same time stamp.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    size: u64,
    stamp: String,
    sha256: Digest,
}

/// Digests by location, remembered in a small JSON file.
#[derive(Debug, Default)]
pub struct InputDigests {
    file: Option<PathBuf>,
    known: BTreeMap<String, Known>,
    changed: bool,
}

impl InputDigests {
    /// Remembers in a file, which need not be there yet. One that cannot be read counts as empty: it is only a cache.
    #[must_use]
    pub fn remembered_in(file: &Path) -> Self {
        let known = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file: Some(file.to_owned()), known, changed: false }
    }

    /// Remembers only as long as this value lives.
    #[must_use]
    pub fn forgetful() -> Self {
        Self::default()
    }

    /// The digest of a file, given by path or URL.
    ///
    /// # Errors
    /// [`Error::Read`] if a local file cannot be read, [`Error::NotFound`] and the store's own failures otherwise.
    pub async fn digest(&mut self, location: &str) -> Result<Digest> {
        match Location::parse(location)? {
            Location::Local(path) => self.local(path).await,
            Location::Cloud(_) => self.cloud(location).await,
        }
    }

    /// The digest of a folder or URL prefix with all that lies below: names, and contents of local files; of objects in a
    /// bucket, which would have to be downloaded, their sizes and stamps.
    ///
    /// # Errors
    /// [`Error::StoreUrl`] if the folder is not there; else those of [`InputDigests::digest`].
    pub async fn folder(&mut self, location: &str) -> Result<Digest> {
        let store = Store::open_existing(location)?;
        let mut files = BTreeMap::new();
        for entry in store.list_stamped("").await? {
            let content = match store.folder() {
                // A file that cannot be read is a picture that cannot be described, and no reason to stop.
                Some(folder) => match self.local(folder.join(&entry.0)).await {
                    Ok(digest) => digest.to_string(),
                    Err(_) => "unreadable".to_owned(),
                },
                None => format!("{} {}", entry.1.size, entry.1.stamp),
            };
            files.insert(entry.0, content);
        }
        Ok(Digest::of_json(&serde_json::json!(files)))
    }

    /// Writes the file, if there is something new.
    ///
    /// # Errors
    /// [`Error::Store`] naming the file.
    pub fn save(&mut self) -> Result<()> {
        let Some(file) = self.file.as_deref().filter(|_| self.changed) else { return Ok(()) };
        let bytes = serde_json::to_vec_pretty(&self.known).expect("a map of strings is JSON");
        replace(file, &bytes).map_err(|e| Error::Store {
            action: "write",
            object: file.display().to_string(),
            reason: e.to_string(),
            class: crate::Class::Fatal,
        })?;
        self.changed = false;
        Ok(())
    }

    async fn local(&mut self, path: PathBuf) -> Result<Digest> {
        let unreadable = |e: io::Error| Error::Read { path: path.display().to_string(), reason: e.to_string() };
        let meta = path.metadata().map_err(unreadable)?;
        let key = path.canonicalize().map_err(unreadable)?.display().to_string();
        let changed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let stamp = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
        if let Some(digest) = self.lookup(&key, meta.len(), &stamp) {
            return Ok(digest);
        }
        let source = path.clone();
        let hashed =
            tokio::task::spawn_blocking(move || hash(&source)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let sha256 = hashed.map_err(unreadable)?;
        if SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED) {
            self.remember(key, Known { size: meta.len(), stamp, sha256: sha256.clone() });
        }
        Ok(sha256)
    }

    async fn cloud(&mut self, url: &str) -> Result<Digest> {
        let store = Store::open(url)?;
        let stat = store.stat("").await?.ok_or_else(|| Error::NotFound { object: url.to_owned() })?;
        if let Some(digest) = self.lookup(url, stat.size, &stat.stamp) {
            return Ok(digest);
        }
        let feed = |mut hasher: Sha256, chunk: bytes::Bytes| async move {
            hasher.update(&chunk);
            Ok(hasher)
        };
        let sha256 = Digest::of_hasher(store.stream("").await?.try_fold(Sha256::new(), feed).await?);
        self.remember(url.to_owned(), Known { size: stat.size, stamp: stat.stamp, sha256: sha256.clone() });
        Ok(sha256)
    }

    fn lookup(&self, key: &str, size: u64, stamp: &str) -> Option<Digest> {
        let known = self.known.get(key)?;
        (known.size == size && known.stamp == stamp).then(|| known.sha256.clone())
    }

    fn remember(&mut self, key: String, known: Known) {
        self.known.insert(key, known);
        self.changed = true;
    }
}

fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest::of_hasher(hasher)),
            n => hasher.update(&chunk[..n]),
        }
    }
}

fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let staged = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(staged.path(), bytes)?;
    staged.persist(file).map(|_| ()).map_err(|e| e.error)
}
