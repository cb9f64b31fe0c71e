//! Objects behind one root: a folder on a laptop, a bucket on a cluster.
//!
//! The one primitive that local disks, S3, GCS and Azure share is *create unless it exists*, so everything durable is
//! written with it ([`Store::create`]). "It exists already" is never believed before the object is read back: after a
//! lost response it may be our own write, and after a conflict of two requests there may be nothing at all.

mod clock;
mod cloud;
mod failure;
#[cfg(test)]
pub(crate) mod faults;
mod local;
mod location;
pub mod probe;
mod retry;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use observe::figures;
use tokio_util::sync::CancellationToken;

pub use clock::Clock;
pub(crate) use location::Location;
pub use retry::Retry;

use crate::{Error, Result};
use retry::Failures;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Path below the root of the store.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// How [`Store::create`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object holds our bytes.
    New,
    /// Somebody else's object was there first and stays.
    Exists,
}

/// What a store knows about an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Size in bytes.
    pub size: u64,
    /// ETag where the store has one, otherwise the time of the last change.
    pub stamp: String,
    /// When it was last written, by the store's clock.
    pub modified: SystemTime,
}

impl Stat {
    fn of(meta: object_store::ObjectMeta) -> Self {
        let modified = meta.last_modified.into();
        Self { size: meta.size, stamp: meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339()), modified }
    }
}

/// A store: objects by path below one root. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder of a local store, whose writes go through [`local`].
    folder: Option<PathBuf>,
    /// Whether the folder is a root of jobs, and must not be taken for an empty one when it has gone.
    is_root: bool,
    /// Where a local store keeps a file that has no name yet.
    staging: local::Staging,
    url: String,
    retry: Retry,
    /// What the last call waits for, shared by all clones.
    trouble: Arc<Mutex<Option<String>>>,
    /// Ends the waiting.
    until: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl Store {
    /// Opens `file://`, `s3://`, `gs://` or `az://`; a plain path and `file://./runs` are folders too. A local folder
    /// is made if it is not there. Identity and endpoint of a cloud store come from the environment variables that
    /// its own tools use (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    ///
    /// # Errors
    /// [`Error::StoreUrl`] if the URL is none of these, or the folder cannot be made.
    pub fn open(url: &str) -> Result<Self> {
        Ok(location::open(url, true, location::identity())?.made_root())
    }

    /// [`Store::open`] with these variables instead of those of the environment.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_with(url: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let owned = variables.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned()));
        Ok(location::open(url, true, owned.collect())?.made_root())
    }

    /// The same for somebody who only reads: a local folder must be there.
    ///
    /// # Errors
    /// [`Error::StoreUrl`].
    pub fn open_existing(url: &str) -> Result<Self> {
        let store = location::open(url, false, location::identity())?;
        Ok(Self { is_root: store.folder().is_some_and(local::is_root), ..store })
    }

    /// The same for a place that is the user's: nothing but the objects is left in it, for a killed writer of a local
    /// one leaves what [`Store::sweep_staged`] removes.
    ///
    /// # Errors
    /// [`Error::StoreUrl`].
    pub fn open_place(url: &str) -> Result<Self> {
        Ok(Self { staging: local::Staging::Beside, ..location::open(url, true, location::identity())? })
    }

    /// A store over any implementation of objects, with `url` as its name in messages.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self {
            objects,
            prefix: Path::default(),
            folder: None,
            is_root: false,
            staging: local::Staging::Control,
            url: url.trim_end_matches('/').into(),
            retry: Retry::default(),
            trouble: Arc::default(),
            until: CancellationToken::new(),
            clock: Arc::new(clock::Timer::default()),
        }
    }

    /// The same store with another patience.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same store for somebody who rather waits than fails: what may pass is tried again for so long. No time at all
    /// changes nothing.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        if !patience.is_zero() {
            self.retry = Retry::outlasting(patience);
        }
        self
    }

    /// The same store for somebody who may have to leave: nothing is tried again once `until` is cancelled.
    #[must_use]
    pub fn until(mut self, until: CancellationToken) -> Self {
        self.until = until;
        self
    }

    /// The same store with another time between two attempts.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Why calls wait at present, if the last one failed and is tried again.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The root as the user wrote it, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of a store on this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    /// The name of an object in messages.
    #[must_use]
    pub fn name(&self, path: &str) -> String {
        if path.is_empty() { self.url.clone() } else { format!("{}/{path}", self.url) }
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; the store's own failures otherwise.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        self.retrying("read", path, || async { self.objects.get(&self.at(path)?).await?.bytes().await }).await
    }

    /// The whole object, or nothing where there is none.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn try_get(&self, path: &str) -> Result<Option<Bytes>> {
        found(self.get(path).await)
    }

    /// Size and stamp of an object, or nothing where there is none.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        let meta = self.retrying("look at", path, || async { self.objects.head(&self.at(path)?).await }).await;
        let meta = found(meta)?;
        Ok(meta.map(Stat::of))
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.stat(path).await?.is_some())
    }

    /// An object as a stream of chunks, for objects that need not fit into memory.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; the store's own failures otherwise.
    pub async fn stream(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let object = self.retrying("read", path, || async { self.objects.get(&self.at(path)?).await }).await?;
        let chunks = object.into_stream();
        let (store, path) = (self.clone(), path.to_owned());
        Ok(chunks.map_err(move |e| store.explain(e, "read", &path)).boxed())
    }

    /// Every object under a folder, at any depth, in byte order of the paths.
    ///
    /// # Errors
    /// The store's own failures. A folder that is not there is an empty one.
    pub async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let stamped = self.list_stamped(folder).await?;
        Ok(stamped.into_iter().map(|(path, stat)| Entry { path, size: stat.size }).collect())
    }

    /// [`Store::list`] with what the store knows of each object.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn list_stamped(&self, folder: &str) -> Result<Vec<(String, Stat)>> {
        let listed = || async {
            let metas: Vec<_> = self.objects.list(Some(&self.at(folder)?)).try_collect().await?;
            if metas.is_empty() { self.is_there(folder).map(|()| metas) } else { Ok(metas) }
        };
        let metas = self.retrying("list", folder, listed).await?;
        let entry = |m: object_store::ObjectMeta| Some((self.below(&m.location)?, Stat::of(m)));
        let mut entries: Vec<(String, Stat)> = metas.into_iter().filter_map(entry).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Writes an object unless there is one. [`Created::New`] means that the object now holds exactly `bytes` and
    /// that this call, or an earlier one with the same bytes, wrote them.
    ///
    /// # Errors
    /// The store's own failures, each naming the object: a full disk, a denied permission, a missing bucket, or a
    /// store that keeps failing.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        Ok(if self.create_or_read(path, bytes).await?.is_none() { Created::New } else { Created::Exists })
    }

    /// [`Store::create`] that hands back what is there if somebody else was first.
    ///
    /// # Errors
    /// Those of [`Store::create`].
    pub async fn create_or_read(&self, path: &str, bytes: Bytes) -> Result<Option<Bytes>> {
        let mut failures = Failures::default();
        loop {
            let Err(error) = self.write(path, bytes.clone(), PutMode::Create).await else {
                figures().store_call("create", "ok");
                self.went_well();
                return Ok(None);
            };
            figures().store_call("create", retry::code(&error));
            let error = self.explain(error, "create", path);
            if !self.retry.is_worth(&error) {
                return Err(error);
            }
            // A lost response, another writer, or a conflict with nothing written: only reading back can tell.
            match self.try_get(path).await? {
                Some(there) if there == bytes => return Ok(None),
                Some(there) => return Ok(Some(there)),
                None => self.pause(&mut failures, error).await?,
            }
        }
    }

    /// Writes an object, over another one if need be. Only for what is derived and read by people, and for published
    /// copies; nothing that decides what is done may be written so.
    ///
    /// # Errors
    /// Those of [`Store::create`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.retrying("write", path, || self.write(path, bytes.clone(), PutMode::Overwrite)).await
    }

    /// Removes an object; none there is fine.
    ///
    /// # Errors
    /// The store's own failures.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let gone = self.retrying("delete", path, || async { self.objects.delete(&self.at(path)?).await }).await;
        found(gone).map(|_| ())
    }

    /// Removes objects, many in one request where the store can. In no order; those that are not there are fine.
    ///
    /// # Errors
    /// The store's own failures; some of the objects may be gone then.
    pub async fn delete_all(&self, paths: &[String]) -> Result<()> {
        let Some(first) = paths.first() else { return Ok(()) };
        let delete = || async {
            let at = paths.iter().map(|path| self.at(path)).collect::<object_store::Result<Vec<Path>>>()?;
            let mut gone = self.objects.delete_stream(stream::iter(at.into_iter().map(Ok)).boxed());
            while let Some(one) = gone.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        self.retrying("delete", first, delete).await
    }

    /// Removes the empty folders that deleted objects of a local store leave, from `folder` down. Does nothing on a
    /// cloud store, which has no folders.
    ///
    /// # Errors
    /// The file system's own failures.
    pub async fn prune(&self, folder: &str) -> Result<()> {
        let Some(at) = self.folder.as_ref().map(|root| root.join(folder)) else { return Ok(()) };
        local::blocking(move || local::prune(&at)).await.map_err(|e| self.explain(e, "clean up", folder))
    }

    /// Removes what killed writers of a local store left: files in a folder under names that no listing shows but that
    /// break its readers, and files that grew long ago and never got a name. Does nothing on a cloud store. Returns the
    /// names.
    ///
    /// # Errors
    /// The file system's own failures.
    pub async fn sweep_staged(&self, folder: &str) -> Result<Vec<String>> {
        let Some(root) = self.folder.clone() else { return Ok(Vec::new()) };
        let below = folder.to_owned();
        local::blocking(move || local::sweep(&root, &below)).await.map_err(|e| self.explain(e, "clean up", folder))
    }

    /// One attempt to write, without retries of ours.
    async fn write(&self, path: &str, bytes: Bytes, mode: PutMode) -> object_store::Result<()> {
        let at = self.at(path)?;
        if let Some(folder) = self.folder.clone() {
            let (replace, staging) = (mode == PutMode::Overwrite, self.staging);
            let store = self.clone();
            let write = move || {
                store.is_there(at.as_ref())?;
                local::write(&folder, at.as_ref(), &bytes, replace, staging)
            };
            return local::blocking(write).await;
        }
        let options = PutOptions { mode, ..PutOptions::default() };
        self.objects.put_opts(&at, PutPayload::from(bytes), options).await.map(|_| ())
    }

    /// Makes a local folder a root, once: what every root has and this one lacks later has gone with its file system. A
    /// folder that cannot be written is told by the first that has to write there.
    fn made_root(self) -> Self {
        let is_root = self.folder().is_some_and(|folder| local::make_root(folder).is_ok());
        Self { is_root, ..self }
    }

    /// Fails where nothing can be found because the whole root has gone.
    fn is_there(&self, path: &str) -> object_store::Result<()> {
        if !self.has_gone() {
            return Ok(());
        }
        Err(object_store::Error::NotFound { path: path.to_owned(), source: "the root has gone".into() })
    }

    /// Whether the root has gone from under its name, as file systems do that are not mounted any more.
    fn has_gone(&self) -> bool {
        self.is_root && !self.folder().is_some_and(local::is_root)
    }

    fn at(&self, path: &str) -> object_store::Result<Path> {
        Ok(Path::parse(join(self.prefix.as_ref(), path))?)
    }

    /// Path below the root of the store.
    fn below(&self, location: &Path) -> Option<String> {
        let rest = location.as_ref().strip_prefix(self.prefix.as_ref())?;
        Some(rest.trim_start_matches('/').to_owned())
    }
}

fn join(prefix: &str, path: &str) -> String {
    match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}/{path}"),
    }
}

/// Turns "there is none" into nothing.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
