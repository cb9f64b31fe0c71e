#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use data::store::Entry;

use super::*;
use crate::fixtures::{Mortal, finished, plan};

const MONDAY: &str = "2026-11-30";
const TUESDAY: &str = "2026-12-01";

/// A root with a finished job, and the places that were opened.
struct World {
    root: Mortal,
    job_id: String,
    stages: Vec<StageRecord>,
    places: Mutex<BTreeMap<String, Mortal>>,
}

impl World {
    async fn new() -> Self {
        let root = Mortal::default();
        let plan = finished(&root.store("s3://runs"), plan(1, 10, &BTreeMap::new())).await;
        let stages = records::of_stages(&plan.stages);
        Self { root, job_id: plan.id.0, stages, places: Mutex::default() }
    }

    fn place(&self, folder: &str) -> Mortal {
        self.places.lock().unwrap().entry(folder.to_owned()).or_default().clone()
    }

    async fn publish(&self, template: &str, today: &str) -> Result<Vec<PublishedFolder>> {
        let store = self.root.store("s3://runs");
        let open = |folder: &str| Ok(self.place(folder).store(folder));
        publish_to(&store, &self.job_id, &job(template), &self.stages, today, open).await
    }

    async fn listed(&self, folder: &str) -> Vec<String> {
        let listed = self.place(folder).store(folder).list("").await.unwrap();
        listed.into_iter().map(|Entry { path, .. }| path).collect()
    }
}

fn job(template: &str) -> Job {
    let text = format!(
        "schema_version = 1\nname = \"shop\"\nsplits = [\"test\"]\n[output]\npublish = {template:?}\n[dataset]\nformat = \
         \"table\"\npath = \"/data\"\n[ranker]\nbase = \"/base\""
    );
    Job::parse("job.toml", &text, &[]).unwrap()
}

const PARTS: [&str; 3] = ["part-00000-of-00003.parquet", "part-00001-of-00003.parquet", "part-00002-of-00003.parquet"];

#[tokio::test]
async fn a_table_is_copied_with_success_last() {
    let world = World::new().await;
    let folders = world.publish("gs://b/{name}/{job}/{date}/{split}/", MONDAY).await.unwrap();
    let folder = format!("gs://b/shop/{}/{MONDAY}/test", world.job_id);
    let rank = world.stages[3].artifact();
    let expected = PublishedFolder {
        folder: folder.clone(),
        table: Table::Rankings,
        split: Split::Test,
        digest: rank.digest.clone(),
        parts: 3,
        rows: 6,
        bytes: folders[0].bytes,
    };
    assert_eq!(folders, [expected]);
    let log = world.place(&folder).log();
    assert_eq!(log.len(), 4, "{log:?}");
    assert_eq!(log[3], "+_SUCCESS");
    for part in PARTS {
        let from = format!("{}/{part}", rank.table_prefix(Table::Rankings));
        let there = world.place(&folder).store(&folder).get(part).await.unwrap();
        assert_eq!(there, world.root.store("s3://runs").get(&from).await.unwrap());
    }
    // Once more: nothing is written, not even read.
    assert_eq!(world.publish("gs://b/{name}/{job}/{date}/{split}/", MONDAY).await.unwrap(), folders);
    assert!(world.place(&folder).log().is_empty());
}

#[tokio::test]
async fn a_copy_that_is_cut_off_goes_on_in_the_folder_of_its_day() {
    for changes in 0..=4 {
        let world = World::new().await;
        let folder = format!("gs://b/{MONDAY}");
        world.place(&folder).dies_after(changes);
        let first = world.publish("gs://b/{date}", MONDAY).await;
        assert_eq!(first.is_ok(), changes == 4);
        assert_eq!(world.listed(&folder).await.len(), changes);
        assert_eq!(world.listed(&folder).await.contains(&"_SUCCESS".to_owned()), changes == 4);
        world.place(&folder).revive();
        let day = if changes == 4 { MONDAY } else { TUESDAY };
        world.publish("gs://b/{date}", day).await.unwrap();
        assert_eq!(world.listed(&folder).await, ["_SUCCESS", PARTS[0], PARTS[1], PARTS[2]]);
        assert!(!world.places.lock().unwrap().contains_key(&format!("gs://b/{TUESDAY}")));
    }
}

#[tokio::test]
async fn another_submission_on_a_later_day_is_another_folder() {
    let world = World::new().await;
    world.publish("gs://b/{date}", MONDAY).await.unwrap();
    let folders = world.publish("gs://b/{date}", TUESDAY).await.unwrap();
    assert_eq!(folders[0].folder, format!("gs://b/{TUESDAY}"));
    assert_eq!(world.listed(&format!("gs://b/{TUESDAY}")).await.len(), 4);
    // Where the place names no day, it is the same one.
    let world = World::new().await;
    world.publish("gs://b/{job}", MONDAY).await.unwrap();
    world.place(&format!("gs://b/{}", world.job_id)).log();
    world.publish("gs://b/{job}", TUESDAY).await.unwrap();
    assert!(world.place(&format!("gs://b/{}", world.job_id)).log().is_empty());
}

#[tokio::test]
async fn what_is_not_of_the_table_is_an_error_and_stays() {
    for (object, content, words) in [
        (PARTS[1], "other rows", "it has another size"),
        (PARTS[1], "rankings rank/000000000000 1", "it holds other rows"),
        ("part-00007-of-00008.parquet", "older", "it does not belong to this table"),
        ("notes.txt", "mine", "it does not belong to this table"),
        ("_SUCCESS", "", "it calls a folder complete that lacks parts"),
    ] {
        let world = World::new().await;
        let store = world.place("gs://b/recs").store("gs://b/recs");
        store.put(object, content.into()).await.unwrap();
        let error = world.publish("gs://b/recs", MONDAY).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(&format!("gs://b/recs/{object}")), "{error}");
        assert!(error.contains("output.publish"), "{error}");
        assert_eq!(store.get(object).await.unwrap(), content, "the place is the user's");
        assert_eq!(store.exists("_SUCCESS").await.unwrap(), object == "_SUCCESS");
    }
}

#[tokio::test]
async fn a_damaged_part_does_not_get_out() {
    let world = World::new().await;
    let path = format!("{}/{}", world.stages[3].artifact().table_prefix(Table::Rankings), PARTS[0]);
    world.root.store("s3://runs").put(&path, "damaged".into()).await.unwrap();
    let error = world.publish("gs://b/recs", MONDAY).await.unwrap_err().to_string();
    assert!(error.contains(&path) && error.contains("not what its record says"), "{error}");
    assert!(!world.listed("gs://b/recs").await.contains(&"_SUCCESS".to_owned()));
}

#[test]
fn every_split_has_a_folder_and_candidates_stand_in_for_rankings() {
    let record = |stage, split| StageRecord {
        stage,
        split: Some(split),
        trial: None,
        digest: Digest::of_bytes(format!("{stage} {split}").as_bytes()),
        spec: None,
    };
    let retrieve = [Split::Train, Split::Validation, Split::Test, Split::All].map(|s| record(Stage::Retrieve, s));
    let mut job = job("s3://b/recs");
    job.splits = vec![Split::Test, Split::All];
    let chosen: Vec<_> = tables(&job, &retrieve).into_iter().map(|(table, split, _)| (table, split)).collect();
    assert_eq!(chosen, [(Table::Candidates, Split::Test), (Table::Candidates, Split::All)]);
    let ranked = [retrieve.to_vec(), vec![record(Stage::Rank, Split::All)]].concat();
    let chosen: Vec<_> = tables(&job, &ranked).into_iter().map(|(table, split, _)| (table, split)).collect();
    assert_eq!(chosen, [(Table::Rankings, Split::All)]);
}

/// The root of a job file is not that of a coordinator.
#[tokio::test]
async fn a_place_in_the_coordinators_own_root_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let store = Store::open(&root.display().to_string()).unwrap();
    let plan = finished(&store, plan(1, 10, &BTreeMap::new())).await;
    let stages = records::of_stages(&plan.stages);
    std::os::unix::fs::symlink(&root, folder.path().join("link")).unwrap();
    for place in ["root", "root/tables/x", "root/_control/v1", "root/jobs/{job}", "link/models", "root/../root/tables"]
    {
        let template = folder.path().join(place).display().to_string();
        let error = begin(&store, &plan.id.0, &job(&template), &stages).await.unwrap_err();
        assert!(matches!(error, Error::PublishIntoRoot { .. }), "{place}: {error}");
        let words = error.to_string();
        assert!(words.contains("output.publish") && words.contains("choose a folder of its own"), "{words}");
        assert!(!words.contains("remove"), "{words}");
    }
    assert!(store.list(&format!("{}/publish", records::folder(&plan.id.0))).await.unwrap().is_empty());
    for place in ["root/published", "root-2/tables"] {
        begin(&store, &plan.id.0, &job(&folder.path().join(place).display().to_string()), &stages).await.unwrap();
    }
    let bucket = Mortal::default().store("s3://runs/root");
    for (place, own) in [("s3://runs/root", true), ("s3://runs/root/tables/x", true), ("s3://runs/root/x", false)] {
        assert_eq!(Place::is_in(place, &bucket), own, "{place}");
    }
    assert!(!Place::is_in("s3://runs/root-2/tables", &bucket) && !Place::is_in("/runs/root/tables", &bucket));
}

/// On a local place, through the public door: the place holds the table and nothing else.
#[tokio::test]
async fn a_folder_gets_the_table_and_nothing_else() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place");
    let template = format!("{}/{{split}}", place.display());
    let store = world.root.store("s3://runs");
    begin(&store, &world.job_id, &job(&template), &world.stages).await.unwrap();
    let folders = publish(&store, &world.job_id, &job(&template), &world.stages).await.unwrap();
    let names = |at: &std::path::Path| -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&place), ["test"]);
    assert_eq!(names(&place.join("test")), ["_SUCCESS", PARTS[0], PARTS[1], PARTS[2]]);
    assert_eq!(folders[0].folder, place.join("test").display().to_string());
}
