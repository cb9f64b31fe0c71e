//! Fetching against servers that misbehave, names that lie and runs that are killed.

#![allow(clippy::unwrap_used)]

mod addresses;
mod answers;
mod manners;
mod names;
mod redirects;
mod resuming;
mod server;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::client::Names;
use super::{FetchOptions, FetchRecord, fetch_all, fetch_by_names};
use crate::store::Store;
use crate::store::faults::FaultStore;
use server::Server;

fn store() -> Store {
    FaultStore::with([]).store()
}

/// Options of a hurried user, who allows the server and nothing else.
fn options(server: &Server) -> FetchOptions {
    FetchOptions {
        picture_bytes: 10_000,
        pause_first: Duration::from_millis(2),
        pause_longest: Duration::from_millis(20),
        retry_after_longest: Duration::from_millis(100),
        host_failures: 1000,
        allow_hosts: vec![format!("127.0.0.1:{}", server.port)],
        ..FetchOptions::default()
    }
}

async fn fetch(store: &Store, urls: &[String], options: &FetchOptions) -> Vec<FetchRecord> {
    fetch_all(store, urls.to_vec(), options, &CancellationToken::new(), |_| {}).await.unwrap()
}

/// How each URL ended, as it stands in a table.
fn reasons(records: &[FetchRecord]) -> Vec<String> {
    records.iter().map(|r| r.outcome.as_str().into_owned()).collect()
}

/// Names that are whatever a test says, and a list of those that were looked up.
struct FakeNames<F> {
    answer: F,
    asked: Mutex<Vec<String>>,
}

impl<F: Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static> FakeNames<F> {
    fn new(answer: F) -> Arc<Self> {
        Arc::new(Self { answer, asked: Mutex::default() })
    }

    async fn fetch(self: &Arc<Self>, store: &Store, urls: &[String], options: &FetchOptions) -> Vec<FetchRecord> {
        let (stop, told) = (CancellationToken::new(), |_| {});
        fetch_by_names(self.clone(), store, urls.to_vec(), options, &stop, &told).await.unwrap()
    }
}

impl<F: Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static> Names for FakeNames<F> {
    /// No address means that there is no such name.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let found = (self.answer)(&host);
        self.asked.lock().unwrap().push(host);
        async move { if found.is_empty() { Err(io::Error::other("no such name")) } else { Ok(found) } }.boxed()
    }
}
