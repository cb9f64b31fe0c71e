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
