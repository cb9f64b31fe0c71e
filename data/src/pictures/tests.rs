#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;
use crate::artifact::Digest;
use crate::job::{Captions, Job};
use crate::store::Store;
use crate::tables::{CaptionStatus, ItemRow, PictureRow};

fn settings(sets: &[&str]) -> Captions {
    let text = "schema_version = 1\nname = \"x\"\nstages = [\"prepare\", \"caption\"]\n[dataset]\npath = \"x\"\n\
                [captions]\nfrom = \"blip2\"\nmodel = \"m\"\nimages = \"i\"\n";
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Job::parse("job", text, &sets).unwrap().captions
}

fn item(id: &str, image: Option<&str>) -> ItemRow {
    let image = image.map(str::to_owned);
    ItemRow { item_id: id.to_owned(), title: id.to_owned(), image, attributes: "{}".to_owned() }
}

fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    (folder, store)
}

async fn inventory(items: &[ItemRow], folder: &Store, settings: &Captions) -> Vec<PictureRow> {
    take_inventory(items, Some(folder), &HashMap::new(), settings, |_| ()).await.unwrap()
}

#[tokio::test]
async fn pictures_are_found_by_path_and_by_id() {
    let (_keep, store) = folder(&[("a.png", b"1"), ("photos/b one.jpg", b"22"), ("c.JPG", b"333"), ("d.jpg", b"")]);
    let items = [
        item("a", None),
        item("b", Some("./photos/b one.jpg")),
        item("c", Some("photos/gone.jpg")),
        item("d", Some(" ")),
        item("e", Some("../secret")),
        item("f", Some("https://example.com/f.jpg")),
    ];
    let rows = inventory(&items, &store, &settings(&["captions.max_bytes=2"])).await;
    let seen: Vec<_> = rows.iter().map(|r| (r.status.as_str(), r.location.as_deref(), r.bytes)).collect();
    assert_eq!(
        seen,
        [
            ("ok", Some("a.png"), Some(1)),
            ("ok", Some("photos/b one.jpg"), Some(2)),
            ("too_large", Some("c.JPG"), Some(3)),
            ("ok", Some("d.jpg"), Some(0)),
            ("missing", None, None),
            ("missing", None, None),
        ]
    );
    assert_eq!(rows[1].image_sha256.as_deref(), Some(Digest::of_bytes(b"22").as_str()));
    assert!(
        rows[4].reason.as_ref().unwrap().contains("../secret")
            && rows[5].reason.as_ref().unwrap().contains("fetch is off")
    );
    let source = PictureSource::open(store.url(), &store).unwrap();
    assert_eq!(source.read(&rows[1]).await.unwrap().unwrap(), b"22"[..]);
    assert_eq!(source.read(&rows[4]).await.unwrap(), None);
}

#[tokio::test]
async fn pictures_that_many_items_have_or_that_are_listed_are_placeholders() {
    let files: Vec<(String, Vec<u8>)> =
        (0..10).map(|i| (format!("{i}.jpg"), if i < 3 { b"none".to_vec() } else { vec![i as u8] })).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let (_keep, store) = folder(&files);
    let items: Vec<ItemRow> = (0..10).map(|i| item(&i.to_string(), None)).collect();
    let listed = format!("captions.placeholder_sha256=[\"{}\"]", Digest::of_bytes(&[7]).to_string().to_uppercase());
    let rows = inventory(&items, &store, &settings(&["captions.placeholder_share=0.25", &listed])).await;
    let placeholders: Vec<usize> = (0..10).filter(|&i| rows[i].status == CaptionStatus::Placeholder).collect();
    assert_eq!(placeholders, [0, 1, 2, 7]);
    assert!(rows[0].reason.as_ref().unwrap().starts_with("shared: 3 items"));
    let rows = inventory(&items, &store, &settings(&["captions.placeholder_share=0.3"])).await;
    assert!(rows.iter().all(|r| r.status == CaptionStatus::Ok), "three of ten are not more than 30 %");
    // One picture for one item is no placeholder, however few items there are.
    let rows = inventory(&items[5..6], &store, &settings(&["captions.placeholder_share=0"])).await;
    assert_eq!(rows[0].status, CaptionStatus::Ok);
}

#[test]
fn items_with_one_picture_meet_in_one_shard() {
    let row = |i: usize| PictureRow {
        item_id: format!("{i}"),
        location: None,
        image_sha256: (!i.is_multiple_of(7)).then(|| format!("{}", i % 40)),
        bytes: None,
        status: if i.is_multiple_of(7) { CaptionStatus::Missing } else { CaptionStatus::Ok },
        reason: None,
    };
    let rows: Vec<PictureRow> = (0..333).map(row).collect();
    for shards in [1, 3, 8, 500] {
        let shares = share_out(&rows, shards);
        let mut all: Vec<usize> = shares.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..333), "every item once");
        for sha in 0..40 {
            let holds = |share: &&Vec<usize>| {
                share.iter().any(|&i| rows[i].image_sha256.as_deref() == Some(sha.to_string().as_str()))
            };
            assert!(shares.iter().filter(holds).count() <= 1);
        }
        if shards == 3 {
            assert!(shares.iter().all(|share| (80..150).contains(&share.len())), "{shares:?}");
        }
    }
    assert_eq!(share_out(&[], 2), [Vec::<usize>::new(), Vec::new()]);
}

#[tokio::test]
async fn what_was_said_is_found_again_by_the_same_model_only() {
    let (_keep, store) = folder(&[]);
    let (one, other) = (Digest::of_bytes(b"one"), Digest::of_bytes(b"other"));
    let (a, b, c) = ("aa".repeat(32), "bb".repeat(32), "cc".repeat(32));
    let known = KnownCaptions::of(&store, &one);
    let said =
        [(a.clone(), Described::Caption("a red mug".to_owned())), (b.clone(), Described::Undecodable("x".to_owned()))];
    known.remember(&said).await.unwrap();
    known.remember(&[(a.clone(), Described::Caption("something else".to_owned()))]).await.unwrap();
    let found = known.find(&[a.clone(), b.clone(), c.clone()]).await.unwrap();
    assert_eq!(found, HashMap::from(said));
    assert!(KnownCaptions::of(&store, &other).find(&[a]).await.unwrap().is_empty());
    // A damaged object counts as not there.
    store.put(&format!("_control/v1/captions/{one}/cc/{c}.json"), "{".into()).await.unwrap();
    assert!(known.find(std::slice::from_ref(&c)).await.unwrap().is_empty());
    known.remember(&[(c.clone(), Described::Caption("a blue mug".to_owned()))]).await.unwrap();
    assert_eq!(known.find(std::slice::from_ref(&c)).await.unwrap()[&c], Described::Caption("a blue mug".to_owned()));
}
