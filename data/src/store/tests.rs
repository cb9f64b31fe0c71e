#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use futures::future::join_all;

use super::faults::{Fault, FaultStore};
use super::*;
use crate::Class;

fn body(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn local() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("runs").to_str().unwrap()).unwrap();
    (folder, store)
}

#[test]
fn urls_are_read_or_refused_with_what_is_allowed() {
    let local = |path: &str| Location::Local(PathBuf::from(path));
    for (url, path) in [
        ("file://./runs", "./runs"),
        ("file://../runs", "../runs"),
        ("runs/a", "runs/a"),
        ("/data/runs", "/data/runs"),
        ("file:///data/my%20runs", "/data/my runs"),
    ] {
        assert_eq!(Location::parse(url).unwrap(), local(path), "{url}");
    }
    for url in ["s3://b/p", "gs://b", "az://c/p"] {
        assert!(matches!(Location::parse(url).unwrap(), Location::Cloud(_)), "{url}");
    }
    for url in ["", "file://host/x", "ftp://b/p", "s3://", "s3:///p"] {
        let error = Location::parse(url).unwrap_err().to_string();
        assert!(error.contains("s3://bucket/prefix") && error.contains(url), "{error}");
    }
}

#[tokio::test]
async fn a_root_that_has_gone_is_not_taken_for_an_empty_one() {
    let (folder, store) = local();
    let quick = Retry { attempts: 1, ..Retry::default() };
    let store = store.with_retry(quick);
    store.create("t/part", body("1")).await.unwrap();
    let (root, away) = (folder.path().join("runs"), folder.path().join("away"));
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap(); // as a folder on which nothing is mounted
    let errors = [
        store.get("t/part").await.unwrap_err(),
        store.list("t").await.unwrap_err(),
        store.exists("t/part").await.unwrap_err(),
        store.create("t/other", body("2")).await.unwrap_err(),
        store.put("t/other", body("2")).await.unwrap_err(),
        store.delete("t/part").await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.class() == Class::Retry && error.to_string().contains("is its file system mounted?"), "{error}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is written where the root is not");
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert_eq!(store.create("t/other", body("2")).await.unwrap(), Created::New);
    assert_eq!(store.list("t").await.unwrap().len(), 2);
    assert_eq!(store.get("t/part").await.unwrap(), body("1"));
}

#[tokio::test]
async fn a_local_store_keeps_objects_and_shows_nothing_else() {
    let (folder, store) = local();
    assert_eq!(store.create("a/b.json", body("1")).await.unwrap(), Created::New);
    assert_eq!(store.create("a/b.json", body("1")).await.unwrap(), Created::New, "the same bytes are our own write");
    assert_eq!(store.create("a/b.json", body("2")).await.unwrap(), Created::Exists);
    assert_eq!(store.get("a/b.json").await.unwrap(), body("1"));
    store.put("a/b.json", body("22")).await.unwrap();
    store.create("a/c/d", Bytes::new()).await.unwrap();
    let entry = |path: &str, size| Entry { path: path.into(), size };
    assert_eq!(store.list("a").await.unwrap(), [entry("a/b.json", 2), entry("a/c/d", 0)]);
    assert_eq!(store.list("nowhere").await.unwrap(), []);
    let names: Vec<_> = fs::read_dir(folder.path().join("runs/a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    store.delete("a/b.json").await.unwrap();
    store.delete("a/b.json").await.unwrap();
    assert!(!store.exists("a/b.json").await.unwrap() && store.exists("a/c/d").await.unwrap());
    assert!(
        matches!(store.get("a/b.json").await, Err(Error::NotFound { object }) if object.ends_with("runs/a/b.json"))
    );
}

#[cfg(unix)]
#[tokio::test]
async fn files_of_a_local_store_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, store) = local();
    store.create("x", body("1")).await.unwrap();
    fs::write(folder.path().join("plain"), "1").unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("runs/x"), mode("plain"), "as any file that the user makes");
}

#[tokio::test]
async fn of_many_writers_one_wins() {
    let (_folder, local) = local();
    for store in [local, FaultStore::with([]).store()] {
        for key in 0..20 {
            let path = format!("k/{key}");
            let writes = (0..16).map(|w| store.create(&path, body(&w.to_string())));
            let ended: Vec<_> = join_all(writes).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<_> = (0..16).filter(|&w| ended[w] == Created::New).collect();
            assert_eq!(winners.len(), 1);
            assert_eq!(store.get(&path).await.unwrap(), body(&winners[0].to_string()));
        }
    }
}

#[tokio::test]
async fn already_exists_is_not_believed_before_it_is_read_back() {
    for (fault, expected) in [
        (Fault::LostResponse, Created::New),
        (Fault::LostResponseThenExists, Created::New),
        (Fault::Conflict, Created::New),
        (Fault::Busy, Created::New),
    ] {
        let store = FaultStore::with([fault, Fault::Conflict]).store();
        assert_eq!(store.create("k", body("ours")).await.unwrap(), expected, "{fault:?}");
        assert_eq!(store.get("k").await.unwrap(), body("ours"), "{fault:?}");
    }
    let faults = FaultStore::with([]);
    let store = faults.store();
    store.create("k", body("theirs")).await.unwrap();
    faults.fail_next([Fault::Busy, Fault::Conflict]);
    assert_eq!(store.create_or_read("k", body("ours")).await.unwrap(), Some(body("theirs")));
}

#[tokio::test]
async fn patience_ends_with_the_name_of_the_object() {
    let store = FaultStore::with([Fault::Conflict; 9]).store();
    let error = store.create("a/k", body("x")).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry);
    assert!(error.to_string().starts_with("cannot create s3://shop/a/k: "), "{error}");
    let store = FaultStore::with([Fault::Busy; 6]).store();
    store.put("a/k", body("x")).await.unwrap();
}

#[tokio::test]
async fn lasting_failures_name_the_object_and_the_way_out() {
    let cases = [
        (Fault::Full, "the disk is full: cannot create s3://shop/a/k", "free some space"),
        (Fault::Denied, "no permission to create s3://shop/a/k", "give this user or role the right"),
        (Fault::NoBucket, "the bucket of s3://shop does not exist", "create it, or correct the URL"),
    ];
    for (fault, what, way_out) in cases {
        let store = FaultStore::with([fault]).store();
        let error = store.create("a/k", body("x")).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal, "{error}");
        assert!(error.to_string().contains(what) && error.to_string().contains(way_out), "{error}");
        assert!(!store.exists("a/k").await.unwrap());
    }
}

#[tokio::test]
async fn a_file_where_a_folder_should_be_fails_at_once() {
    let (folder, store) = local();
    fs::write(folder.path().join("runs/tables"), "a file").unwrap();
    let error = store.create("tables/x", body("1")).await.unwrap_err();
    assert!(error.to_string().contains("runs/tables/x"), "{error}");
    assert_eq!(error.class(), Class::Fatal, "{error}");
}

#[tokio::test]
async fn staged_files_of_killed_writers_are_swept() {
    let (folder, store) = local();
    store.create("t/part-00000-of-00001.parquet", body("rows")).await.unwrap();
    let at = |name: &str| folder.path().join("runs/t").join(name);
    fs::write(at("part-00000-of-00001.parquet#1"), "torn").unwrap();
    fs::write(at("notes#one"), "kept").unwrap();
    assert_eq!(store.sweep_staged("t").await.unwrap(), ["part-00000-of-00001.parquet#1"]);
    assert!(at("notes#one").exists() && at("part-00000-of-00001.parquet").exists());
    assert!(store.sweep_staged("nowhere").await.unwrap().is_empty());
}

#[tokio::test]
async fn many_objects_are_removed_with_their_empty_folders() {
    let (folder, store) = local();
    for path in ["t/a/1", "t/a/2", "t/b/3"] {
        store.create(path, body("x")).await.unwrap();
    }
    let doomed = ["t/a/1", "t/a/2", "t/never"].map(str::to_owned);
    store.delete_all(&doomed).await.unwrap();
    store.prune("t").await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 1);
    assert!(!folder.path().join("runs/t/a").exists() && folder.path().join("runs/t/b/3").exists());
    store.prune("nowhere").await.unwrap();
}

#[tokio::test]
async fn nothing_but_its_objects_is_in_a_place_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let place = Store::open_place(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(place.create("d/part", body("1")).await.unwrap(), Created::New);
    assert_eq!(place.create("d/part", body("2")).await.unwrap(), Created::Exists);
    fs::write(folder.path().join("d/part#77000001"), "torn").unwrap();
    assert_eq!(place.list("").await.unwrap().len(), 1, "what a killed writer left is not shown");
    assert_eq!(place.sweep_staged("d").await.unwrap(), ["part#77000001"]);
    let names = |at: &str| fs::read_dir(folder.path().join(at)).unwrap().map(|e| e.unwrap().file_name()).collect();
    let (top, inside): (Vec<_>, Vec<_>) = (names(""), names("d"));
    assert_eq!((top, inside), (vec!["d".into()], vec!["part".into()]));
}

#[tokio::test]
async fn files_that_never_got_a_name_are_swept_when_they_are_old() {
    let (folder, store) = local();
    store.create("t/x", body("rows")).await.unwrap();
    let staging = folder.path().join("runs/_control/v1/staging");
    let two_hours = std::time::Duration::from_secs(2 * 60 * 60);
    for (name, age) in [("object-dead", two_hours), ("object-alive", std::time::Duration::ZERO)] {
        fs::write(staging.join(name), "torn").unwrap();
        let file = fs::File::options().write(true).open(staging.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    assert_eq!(store.sweep_staged("t").await.unwrap(), ["object-dead"]);
    let left: Vec<_> = fs::read_dir(&staging).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["object-alive"]);
}

#[tokio::test]
async fn a_deep_folder_is_made_once_by_many() {
    let (_folder, store) = local();
    let writes = (0..16).map(|i| {
        let (store, path) = (store.clone(), format!("a/b/c/d/{i:02}"));
        async move { store.create(&path, body("x")).await }
    });
    assert!(join_all(writes).await.into_iter().all(|ended| ended.unwrap() == Created::New));
    assert_eq!(store.list("a").await.unwrap().len(), 16);
}

/// What the client says of an answer.
fn answered(status: &str) -> object_store::Error {
    let source = format!("Error performing PUT http://x/k in 1ms - Server returned non-2xx status code: {status}");
    object_store::Error::Generic { store: "S3", source: source.into() }
}

#[test]
fn the_class_of_a_failure_follows_from_the_answer() {
    let store = FaultStore::with([]).store();
    for (status, class) in [
        ("400 Bad Request: <Code>InvalidArgument</Code>", Class::Fatal),
        ("400 Bad Request: <Code>RequestTimeout</Code>", Class::Retry),
        ("408 Request Timeout: ", Class::Retry),
        ("409 Conflict: ", Class::Retry),
        ("411 Length Required: ", Class::Fatal),
        ("413 Payload Too Large: ", Class::Fatal),
        ("429 Too Many Requests: ", Class::Retry),
        ("500 Internal Server Error: ", Class::Retry),
        ("501 Not Implemented: ", Class::Fatal),
        ("503 Service Unavailable: <Code>SlowDown</Code>", Class::Retry),
    ] {
        assert_eq!(store.explain(answered(status), "create", "k").class(), class, "{status}");
    }
    let full = store.explain(answered("507 Insufficient Storage: "), "create", "k");
    assert!(matches!(full, Error::DiskFull { .. }) && full.may_pass(), "{full}");
    let elsewhere = object_store::Error::Generic {
        store: "S3",
        source: "Received redirect without LOCATION, this normally indicates an incorrectly configured region".into(),
    };
    let elsewhere = store.explain(elsewhere, "create", "k");
    assert!(elsewhere.class() == Class::Fatal && elsewhere.to_string().contains("AWS_REGION"), "{elsewhere}");
}

#[test]
fn an_endpoint_without_tls_has_to_be_allowed() {
    let at = |url: &str, variables: &[(&str, &str)]| Store::open_with(url, variables).map(|_| ());
    let s3 = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let refused = at("s3://shop/runs", &s3).unwrap_err().to_string();
    assert!(refused.contains("AWS_ENDPOINT_URL") && refused.contains("AWS_ALLOW_HTTP=true"), "{refused}");
    at("s3://shop/runs", &[&s3[..], &[("AWS_ALLOW_HTTP", "true")]].concat()).unwrap();
    let azure = [("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9"), ("AWS_ALLOW_HTTP", "true")];
    let refused = at("az://shop/runs", &azure).unwrap_err().to_string();
    assert!(refused.contains("AZURE_ALLOW_HTTP=true"), "{refused}");
    let nobody = at("az://shop/runs", &[]).unwrap_err().to_string();
    assert!(nobody.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{nobody}");
}

#[tokio::test]
async fn who_has_no_identity_is_told_which_variables_to_set() {
    // Nobody listens at this port, as nobody does at the address of the metadata service outside of a cloud.
    let store = Store::open_with("s3://shop/runs", &[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")]).unwrap();
    let started = std::time::Instant::now();
    let error = store.create("k", body("x")).await.unwrap_err();
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(matches!(error, Error::NoIdentity { .. }) && error.class() == Class::Retry, "{error}");
    let said = error.to_string();
    assert!(
        said.starts_with("no identity for s3://shop/runs: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "{said}"
    );
}

#[tokio::test]
async fn a_store_that_never_answers_ends_a_call_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            silent.push(connection);
        }
    });
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_TIMEOUT", "300ms"),
    ];
    let brief = Retry { deadline: std::time::Duration::from_secs(1), ..Retry::default() };
    let store = Store::open_with("s3://shop/runs", &variables).unwrap().with_retry(brief);
    let started = std::time::Instant::now();
    let error = store.create("k", body("x")).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[tokio::test]
async fn a_deadline_ends_patience_before_the_attempts_do() {
    let quick = std::time::Duration::from_millis(5);
    let patience = Retry { first: quick, longest: quick, ..Retry::outlasting(std::time::Duration::from_millis(60)) };
    let store = FaultStore::with([Fault::Busy; 1000]).store().with_retry(patience);
    let started = std::time::Instant::now();
    store.put("k", body("x")).await.unwrap_err();
    let took = started.elapsed().as_millis();
    assert!((60..3000).contains(&took), "{took} ms");
}
