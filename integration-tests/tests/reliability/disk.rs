//! A disk that is full, under the root and under the workers: everybody says so, nothing is torn, and it goes on when there is
//! room again.
//!
//! Needs the right to mount a small file system in memory; says so and passes without.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;

use crate::cluster::{Cluster, Place};
use crate::oracle::{Scores, records_describe_what_is_there};
use crate::population::{Population, SHARDS};
use crate::{sized, turn};

/// Shards that are to be scored on the disk that is full in the middle.
const UNDONE: u32 = 100;

/// A file system of its own, gone at the end of the test.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder).stderr(Stdio::null());
        let mounted = command.status().is_ok_and(|status| status.success());
        if !mounted {
            println!("SKIPPED full disks: no right to mount a small file system");
        }
        mounted.then(|| Self { folder: folder.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Leaves no room for anything.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

#[test]
fn a_full_disk_under_the_workers_fails_with_words_and_is_made_up_for() {
    let _turn = turn();
    let population = Population::get();
    let workshop = Workshop::open();
    let (scratch, root) = (workshop.path("scratch"), workshop.path("root"));
    let Some(disk) = SmallDisk::mount(&scratch, "16m") else { return };
    let mut cluster = Cluster::at(workshop, Place::Folder, root);
    let variable = ("TMPDIR".to_owned(), scratch.display().to_string());
    cluster.environment.insert("worker", vec![variable]);
    disk.fill();
    cluster.start(1);
    let job = cluster.submit(population);
    let status = cluster.end_of(&job);
    let reason = status["reason"].as_str().unwrap();
    assert_eq!((&status["state"], &status["may_pass"]), (&"failed".into(), &true.into()), "{status:#}");
    assert!(reason.contains(&scratch.display().to_string()) && reason.contains("needs room"), "{reason}");
    disk.make_room();
    assert_eq!(cluster.submit(population), job);
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    assert_eq!(cluster.deaths, 0);
    let outputs = JobOutputs::open(cluster.root(), &job);
    assert!(
        Scores::of(cluster.root(), &outputs) == population.scores,
        "parts differ from those of the undisturbed run"
    );
    drop(disk);
    println!("figure: disk of the workers full: the job failed, and succeeded when submitted again; `{reason}`");
}

#[test]
fn a_cluster_waits_for_room_on_a_full_disk() {
    let _turn = turn();
    let population = Population::get();
    let full = sized(Duration::from_secs(8), Duration::from_secs(60));
    let workshop = Workshop::open();
    let root = workshop.path("disk");
    let Some(disk) = SmallDisk::mount(&root, "64m") else { return };
    population.unscored(&root, UNDONE);
    let mut cluster = Cluster::at(workshop, Place::Folder, root);
    cluster.start(2);
    let job = cluster.submit(population);
    cluster.until("ranking has begun", |cluster| cluster.done("rank") > (SHARDS - UNDONE) as usize + 5);

    let (began, mut said, mut reason) = (Instant::now(), None, String::new());
    while began.elapsed() < full {
        disk.fill(); // what little is freed meanwhile is taken too
        cluster.tend();
        let status = cluster.status(&job).expect("the coordinator answers on a full disk");
        assert_eq!(status["state"], "running", "{status:#}");
        let words =
            [&status["waiting"]].into_iter().chain(status["stages"].as_array().unwrap().iter().map(|s| &s["note"]));
        let about = words.filter_map(|w| w.as_str()).find(|w| w.contains("the disk is full"));
        if let Some(about) = about.filter(|_| said.is_none()) {
            (said, reason) = (Some(began.elapsed()), about.to_owned());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let done = cluster.done("rank");
    assert!(done < SHARDS as usize - 10, "nothing is left to do: make the job longer");
    assert!(said.is_some(), "the status does not say that the disk is full: {:#}", cluster.status(&job).unwrap());
    disk.make_room();
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    assert_eq!(cluster.deaths, 0);
    let outputs = JobOutputs::open(cluster.root(), &job);
    assert!(
        Scores::of(cluster.root(), &outputs) == population.scores,
        "parts differ from those of the undisturbed run"
    );
    records_describe_what_is_there(cluster.root(), &outputs);
    drop(disk);
    println!(
        "figure: disk of the root full for {} s: status said so after {:.1} s, no torn object, no process was started again; \
         `{reason}`",
        full.as_secs(),
        said.unwrap_or_default().as_secs_f64(),
    );
}
