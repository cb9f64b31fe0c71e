use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::server::{Server, Step, answer, ok, picture, status};
use super::{FetchOptions, fetch, options, reasons, store};
use crate::artifact::Digest;
use crate::pictures::fetch::{FetchProgress, fetch_all, picture_path, record_path};
use crate::store::Store;
use crate::store::faults::{Fault, FaultStore};
use crate::{Class, Error};

#[tokio::test]
async fn a_killed_run_goes_on_where_it_was() {
    let server = Server::start(|request| match (request.path.as_str(), request.nth) {
        ("/4" | "/5" | "/6" | "/7", 0) => vec![Step::Hang],
        ("/1", _) => status("404 Not Found"),
        _ => ok(&picture(&request.path)),
    });
    let (server, store) = (server.await, store());
    let urls: Vec<_> = (0..8).map(|i| server.url(&format!("/{i}"))).collect();
    let four = Notify::new();
    let told = |progress: FetchProgress| {
        if progress.stored + progress.failed == 4 {
            four.notify_one();
        }
    };
    let (options, stop) = (options(&server), CancellationToken::new());
    // The other branch drops the run in the middle of four pictures.
    tokio::select! {
        _ = fetch_all(&store, urls.clone(), &options, &stop, told) => panic!("the server hangs"),
        () = async { four.notified().await; server.wait_for(8).await } => {}
    }
    let records = fetch(&store, &urls, &options).await;
    let asked: Vec<_> = (0..8).map(|i| server.asked(&format!("/{i}"))).collect();
    assert_eq!(asked, [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(reasons(&records), ["ok", "not_found", "ok", "ok", "ok", "ok", "ok", "ok"]);
    assert_eq!(fetch(&store, &urls, &options).await, records);
    assert_eq!(server.requests().len(), 12);
}

#[tokio::test]
async fn cancelling_ends_a_run_at_once() {
    let server = Server::start(|_| vec![Step::Hang]);
    let (server, store) = (server.await, store());
    let (options, stop) = (options(&server), CancellationToken::new());
    let run = fetch_all(&store, vec![server.url("/a")], &options, &stop, |_| {});
    let cancel = async {
        server.wait_for(1).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(run, cancel);
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::FetchStopped) && error.class() == Class::Retry, "{error}");
    let again = fetch_all(&store, vec![server.url("/b")], &options, &stop, |_| {}).await;
    assert!(matches!(again, Err(Error::FetchStopped)));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_same_url_is_asked_once_and_the_same_picture_stored_once() {
    let server = Server::start(|_| ok(&picture("the same")));
    let (server, store) = (server.await, store());
    let urls = ["/b", "/a", "/b", "/a", "/a"].map(|path| server.url(path));
    let last = Mutex::new(FetchProgress::default());
    let told = |progress| *last.lock().unwrap() = progress;
    let records = fetch_all(&store, urls.to_vec(), &options(&server), &CancellationToken::new(), told).await.unwrap();
    assert_eq!(records.iter().map(|r| r.url.clone()).collect::<Vec<_>>(), [server.url("/b"), server.url("/a")]);
    assert_eq!(server.requests().len(), 2);
    let there: Vec<_> = store.list("_control/v1/pictures").await.unwrap().into_iter().map(|e| e.path).collect();
    let content = picture_path(&Digest::of_bytes(&picture("the same")));
    assert_eq!(there.iter().filter(|path| !path.contains("/urls/")).collect::<Vec<_>>(), [&content]);
    assert!(there.contains(&record_path(&server.url("/a"))) && there.len() == 3, "{there:?}");
    let size = picture("the same").len() as u64;
    assert_eq!(*last.lock().unwrap(), FetchProgress { urls: 2, stored: 2, stored_bytes: 2 * size, failed: 0 });
}

#[tokio::test]
async fn records_say_what_happened() {
    let server = Server::start(|request| match request.path.as_str() {
        "/large" => answer("200 OK", "content-length: 20000\r\n", b""),
        _ => status("503 Service Unavailable"),
    });
    let (server, store) = (server.await, store());
    let options = FetchOptions { attempts: 2, ..options(&server) };
    let urls = [server.url("/busy"), server.url("/large"), "http://10.0.0.1/a".to_owned(), "nonsense".to_owned()];
    fetch(&store, &urls, &options).await;
    let read = async |url: &str| -> serde_json::Value {
        serde_json::from_slice(&store.get(&record_path(url)).await.unwrap()).unwrap()
    };
    let expected = serde_json::json!({
        "url": urls[0], "outcome": "http_503", "final": false, "attempts": 2,
        "detail": "the server answered 503 Service Unavailable",
    });
    assert_eq!(read(&urls[0]).await, expected);
    let expected = serde_json::json!({
        "url": urls[1], "outcome": "too_large", "final": true, "attempts": 1, "limit_bytes": 10_000,
        "detail": "the answer announces 20000 bytes, a picture may have 10000 bytes",
    });
    assert_eq!(read(&urls[1]).await, expected);
    let expected = serde_json::json!({
        "url": "nonsense", "outcome": "bad_url", "final": true, "attempts": 0,
        "detail": "this is not a URL: relative URL without a base",
    });
    assert_eq!(read("nonsense").await, expected);
    assert!(!store.exists(&record_path("http://10.0.0.1/a")).await.unwrap());
}

#[tokio::test]
async fn what_failed_for_a_while_is_asked_again_and_what_failed_for_good_is_not() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/gone" => status("410 Gone"),
        "/page" => ok(b"<html>"),
        "/large" => ok(&[picture(""), vec![0; 15_000]].concat()),
        _ if is_well.load(Ordering::Relaxed) => ok(&picture(&request.path)),
        _ => status("502 Bad Gateway"),
    });
    let (server, store) = (server.await, store());
    let urls = ["/gone", "/page", "/large", "/busy"].map(|path| server.url(path));
    let options = FetchOptions { attempts: 2, ..options(&server) };
    assert_eq!(reasons(&fetch(&store, &urls, &options).await), ["not_found", "not_an_image", "too_large", "http_502"]);
    well.store(true, Ordering::Relaxed);
    assert_eq!(reasons(&fetch(&store, &urls, &options).await), ["not_found", "not_an_image", "too_large", "ok"]);
    assert_eq!(["/gone", "/page", "/large", "/busy"].map(|path| server.asked(path)), [1, 1, 1, 3]);
    // What was too large is asked for again once more is allowed.
    let roomy = FetchOptions { picture_bytes: 20_000, ..options };
    assert_eq!(reasons(&fetch(&store, &urls, &roomy).await), ["not_found", "not_an_image", "ok", "ok"]);
    assert_eq!(server.asked("/large"), 2);
}

#[tokio::test]
async fn a_host_that_becomes_allowed_is_asked() {
    let server = Server::start(|_| ok(&picture("")));
    let (server, store) = (server.await, store());
    let urls = [server.url("/a")];
    let nobody = FetchOptions { allow_hosts: vec![], ..options(&server) };
    assert_eq!(reasons(&fetch(&store, &urls, &nobody).await), ["refused_address"]);
    assert!(server.requests().is_empty());
    assert_eq!(reasons(&fetch(&store, &urls, &options(&server)).await), ["ok"]);
}

#[tokio::test]
async fn what_is_lost_or_torn_is_asked_for_again() {
    let server = Server::start(|request| ok(&picture(&request.path)));
    let (server, store) = (server.await, store());
    let paths = ["/lost", "/torn", "/strange", "/other", "/fine"];
    let urls = paths.map(|path| server.url(path));
    let records = fetch(&store, &urls, &options(&server)).await;
    store.delete(&picture_path(&Digest::of_bytes(&picture("/lost")))).await.unwrap();
    store.put(&record_path(&urls[1]), Bytes::from_static(b"{\"url\": \"ht")).await.unwrap();
    let strange = serde_json::json!({"url": urls[2], "outcome": "a new one", "final": true, "attempts": 1});
    store.put(&record_path(&urls[2]), strange.to_string().into()).await.unwrap();
    let others = store.get(&record_path(&urls[4])).await.unwrap();
    store.put(&record_path(&urls[3]), others).await.unwrap();
    assert_eq!(fetch(&store, &urls, &options(&server)).await, records);
    assert_eq!(paths.map(|path| server.asked(path)), [2, 2, 2, 2, 1]);
}

#[tokio::test]
async fn bytes_over_the_budget_wait_for_the_next_run() {
    let server = Server::start(|request| ok(&[picture(&request.path), vec![0; 980]].concat()));
    let (server, store) = (server.await, store());
    let urls = ["/1", "/2", "/3", "/4"].map(|path| server.url(path));
    let poor = FetchOptions { concurrent: 1, budget_bytes: 2_500, ..options(&server) };
    let records = fetch(&store, &urls, &poor).await;
    assert_eq!(reasons(&records), ["ok", "ok", "budget", "budget"]);
    assert_eq!((records[2].attempts, records[3].attempts, server.asked("/4")), (1, 0, 0));
    assert!(!records[3].outcome.is_final() && !store.exists(&record_path(&urls[3])).await.unwrap());
    assert_eq!(reasons(&fetch(&store, &urls, &poor).await), ["ok"; 4]);
    assert_eq!(["/1", "/2", "/3", "/4"].map(|path| server.asked(path)), [1, 1, 2, 1]);
}

#[tokio::test]
async fn time_over_the_budget_waits_for_the_next_run() {
    let server = Server::start(|request| match request.path.as_str() {
        "/slow" => vec![Step::Hang],
        _ => answer("503 Service Unavailable", "retry-after: 60\r\ncontent-length: 0\r\n", b""),
    });
    let (server, store) = (server.await, store());
    let urls = ["/slow", "/busy"].map(|path| server.url(path));
    let budget_time = Duration::from_millis(200);
    let hour = Duration::from_secs(3600);
    let hurried = FetchOptions { budget_time, retry_after_longest: hour, ..options(&server) };
    assert_eq!(reasons(&fetch(&store, &urls, &hurried).await), ["budget", "budget"]);
    let none = FetchOptions { budget_time: Duration::ZERO, ..options(&server) };
    assert_eq!(reasons(&fetch(&store, &urls, &none).await), ["budget", "budget"]);
    assert_eq!((server.asked("/slow"), server.asked("/busy")), (1, 1));
    // A budget without an end is one, too.
    let endless = FetchOptions { budget_time: Duration::MAX, budget_bytes: u64::MAX, ..options(&server) };
    let bad =
        fetch(&store, &["nonsense".to_owned(), server.url("/busy")], &FetchOptions { attempts: 1, ..endless }).await;
    assert_eq!(reasons(&bad), ["bad_url", "http_503"]);
}

#[tokio::test]
async fn a_store_that_fails_ends_the_run() {
    let server = Server::start(|request| ok(&picture(&request.path))).await;
    let (stop, urls) = (CancellationToken::new(), vec![server.url("/a"), server.url("/b")]);
    let full = FaultStore::with([Fault::None, Fault::None, Fault::Full]).store();
    let options = FetchOptions { concurrent: 1, per_host: 1, ..options(&server) };
    let told = AtomicU64::new(0);
    let count = |_| _ = told.fetch_add(1, Ordering::Relaxed);
    let error = fetch_all(&full, urls.clone(), &options, &stop, count).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(told.load(Ordering::Relaxed), 2);
    // A busy store is waited for, and one that hides what it did is looked at.
    let faults = [Fault::Busy, Fault::LostResponse, Fault::Conflict, Fault::LostResponseThenExists];
    let busy = FaultStore::with(faults).store();
    assert_eq!(reasons(&fetch(&busy, &urls, &options).await), ["ok", "ok"]);
    // Bytes under a name that is not theirs are not taken for the picture.
    let foreign = store();
    let path = picture_path(&Digest::of_bytes(&picture("/a")));
    foreign.create(&path, Bytes::from_static(b"something else")).await.unwrap();
    let error = fetch_all(&foreign, urls, &options, &stop, |_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::Differs { object, .. } if object.ends_with(&path)), "{error}");
}

#[tokio::test]
async fn a_folder_keeps_pictures_as_a_cloud_does() {
    let server = Server::start(|request| ok(&picture(&request.path)));
    let (server, folder) = (server.await, tempfile::tempdir().unwrap());
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let urls = [server.url("/a"), server.url("/b?size=large&x=é")];
    let records = fetch(&store, &urls, &options(&server)).await;
    assert_eq!(reasons(&records), ["ok", "ok"]);
    assert_eq!(fetch(&store, &urls, &options(&server)).await, records);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn no_urls_are_no_work() {
    let server = Server::start(|_| vec![]).await;
    let run = async move { fetch(&store(), &[], &options(&server)).await };
    // A run can move to any thread.
    assert!(tokio::spawn(run).await.unwrap().is_empty());
}
