//! A store in memory that fails on request.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{Retry, Store};

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing out of the ordinary.
    None,
    /// It is done, and the answer is lost.
    LostResponse,
    /// It is done, the answer is lost, and the client's own second try finds the object there.
    LostResponseThenExists,
    /// It is not done, and the store says that the object exists (a conflict of two requests).
    Conflict,
    /// It is not done, and the store says that it is busy.
    Busy,
    /// It is not done: no space left.
    Full,
    /// It is not done: no permission.
    Denied,
    /// It is not done: no bucket.
    NoBucket,
}

/// The store and the faults of its next writes, in order; no faults after the last one.
#[derive(Debug, Default)]
pub(crate) struct FaultStore {
    objects: InMemory,
    faults: Mutex<VecDeque<Fault>>,
}

impl FaultStore {
    /// A store whose next writes meet these faults.
    pub(crate) fn with(faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Arc::new(Self { faults: Mutex::new(faults.into_iter().collect()), ..Self::default() })
    }

    /// A patient and quick [`Store`] over it.
    pub(crate) fn store(self: &Arc<Self>) -> Store {
        let quick = Retry {
            attempts: 7,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(2),
            ..Retry::default()
        };
        Store::over(self.clone(), "s3://shop").with_retry(quick)
    }

    /// Faults of the writes from now on.
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().expect("no test panics while it holds this").extend(faults);
    }

    /// Nothing fails from now on.
    pub(crate) fn heal(&self) {
        self.faults.lock().expect("no test panics while it holds this").clear();
    }

    fn next(&self) -> Fault {
        self.faults.lock().expect("no test panics while it holds this").pop_front().unwrap_or(Fault::None)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "FaultStore", source: source.into() }
}

fn exists(location: &Path) -> Error {
    Error::AlreadyExists { path: location.to_string(), source: "409 Conflict".into() }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.next() {
            Fault::None => self.objects.put_opts(location, payload, opts).await,
            Fault::LostResponse => {
                self.objects.put_opts(location, payload, opts).await?;
                Err(generic(io::Error::from(io::ErrorKind::ConnectionReset)))
            }
            Fault::LostResponseThenExists => {
                self.objects.put_opts(location, payload, opts).await?;
                Err(exists(location))
            }
            Fault::Conflict => Err(exists(location)),
            Fault::Busy => Err(generic("Server returned non-2xx status code: 503 Slow Down")),
            Fault::Full => Err(generic(io::Error::from(io::ErrorKind::StorageFull))),
            Fault::Denied => {
                Err(Error::PermissionDenied { path: location.to_string(), source: "403 Forbidden".into() })
            }
            Fault::NoBucket => {
                Err(Error::NotFound { path: location.to_string(), source: "<Code>NoSuchBucket</Code>".into() })
            }
        }
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
