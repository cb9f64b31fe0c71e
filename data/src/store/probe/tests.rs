#![allow(clippy::unwrap_used)]

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::store::faults::{Fault, FaultStore};

/// How a store treats "create unless it exists".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// As one should.
    Kept,
    /// It does not look, as s3rver.
    Ignored,
    /// It looks, and writes afterwards, as moto.
    LookedAtFirst,
}

/// A store in memory with a condition of its own.
#[derive(Debug)]
struct Fake {
    objects: InMemory,
    condition: Condition,
}

fn fake(condition: Condition) -> Store {
    Store::over(Arc::new(Fake { objects: InMemory::new(), condition }), "s3://shop")
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let creates = opts.mode == PutMode::Create;
        let over = PutOptions { mode: PutMode::Overwrite, ..opts.clone() };
        match self.condition {
            Condition::Ignored if creates => self.objects.put_opts(at, payload, over).await,
            Condition::LookedAtFirst if creates => {
                if self.objects.head(at).await.is_ok() {
                    return self.objects.put_opts(at, payload, opts).await;
                }
                tokio::task::yield_now().await;
                self.objects.put_opts(at, payload, over).await
            }
            _ => self.objects.put_opts(at, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

fn failed(findings: &Findings) -> Vec<Trial> {
    findings.verdicts.iter().filter(|v| !v.passed).map(|v| v.trial).collect()
}

#[tokio::test]
async fn a_store_that_keeps_its_promises_passes_and_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let local = Store::open(folder.path().to_str().unwrap()).unwrap();
    for store in [local, fake(Condition::Kept)] {
        let findings = examine(&store).await.unwrap();
        assert_eq!((failed(&findings), findings.verdicts.len()), (vec![], 5));
        assert_eq!(findings.objection(), None);
        require_safe(&store).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [], "{}", store.url());
    }
    let left = std::fs::read_dir(folder.path().join("_control/v1/doctor")).unwrap().count();
    assert_eq!(left, 0, "no empty folders either");
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_refused_in_words() {
    let store = fake(Condition::Ignored);
    let findings = examine(&store).await.unwrap();
    assert_eq!(failed(&findings), [Trial::CreateTwice, Trial::Race]);
    let objection = findings.objection().unwrap();
    assert!(
        objection.starts_with("create twice: the second was accepted and has replaced the first; race"),
        "{objection}"
    );
    assert!(objection.contains("conditional writes are not honoured") && objection.contains("s3rver"), "{objection}");
    let error = require_safe(&store).await.unwrap_err();
    assert!(matches!(error, Error::UnsafeStore { .. }), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("s3://shop cannot hold jobs: ") && said.contains("doctor --store s3://shop"), "{said}");
    assert_eq!(store.list("").await.unwrap(), [], "what was written is removed all the same");
}

#[tokio::test]
async fn a_store_that_looks_before_it_writes_loses_the_race() {
    let store = fake(Condition::LookedAtFirst);
    assert_eq!(failed(&examine(&store).await.unwrap()), [Trial::Race]);
    require_safe(&store).await.unwrap_err();
}

#[tokio::test]
async fn lost_answers_are_no_breach_of_a_promise() {
    let faults = [Fault::LostResponse, Fault::LostResponseThenExists, Fault::Conflict, Fault::Busy];
    let store = FaultStore::with(faults.into_iter().cycle().take(40)).store();
    assert_eq!(examine(&store).await.unwrap().objection(), None);
}
