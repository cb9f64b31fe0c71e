//! A disk that is full: a clear error, no torn object, and on it goes when there is room again.
//!
//! Needs the right to mount a small file system in memory; says so and passes without.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use data::Error;
use data::store::{Created, Store};
use mllm4rec_integration_tests::program::{Workshop, wait};

/// A file system of its own, gone at the end of the test.
struct SmallDisk {
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("disk");
        std::fs::create_dir(&folder).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &folder);
        if !mounted {
            println!("SKIPPED: no right to mount a small file system");
        }
        mounted.then_some(Self { folder, _parent: parent })
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], &self.folder));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}

fn mount(args: &[&str], folder: &Path) -> bool {
    let mut command = Command::new("mount");
    let status = command.args(args).arg(folder).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_full_disk_tears_nothing() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let store = Store::open(disk.folder.to_str().unwrap()).unwrap();
    let bytes = Bytes::from(vec![7; 100_000]);
    let mut written = 0;
    let error = loop {
        match store.create(&format!("t/{written:02}"), bytes.clone()).await {
            Ok(created) => assert_eq!(created, Created::New),
            Err(e) => break e,
        }
        written += 1;
    };
    assert!(matches!(error, Error::DiskFull { .. }) && error.may_pass(), "{error}");
    assert!(error.to_string().contains(&format!("t/{written:02}")) && error.to_string().contains("free some space"));
    let listed = store.list("t").await.unwrap();
    assert_eq!((listed.len(), listed.iter().all(|e| e.size == 100_000)), (written, true), "whole objects only");
    let staged = std::fs::read_dir(disk.folder.join("_control/v1/staging")).unwrap().count();
    assert_eq!(staged, 0, "what did not fit is removed");
    store.delete("t/00").await.unwrap();
    assert_eq!(store.create(&format!("t/{written:02}"), bytes.clone()).await.unwrap(), Created::New);
    assert_eq!(store.get(&format!("t/{written:02}")).await.unwrap(), bytes);
}

#[test]
fn a_job_goes_on_when_there_is_room_again() {
    let Some(disk) = SmallDisk::mount("48k") else { return };
    let workshop = Workshop::open();
    let (job, root) = (workshop.job().display().to_string(), disk.folder.display().to_string());
    let run = || wait(workshop.command(&["run", &job, "--root", &root, "--workers", "1"]).spawn().unwrap());
    let full = run();
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(75), "{said}");
    assert!(said.contains("the disk is full: cannot create") && said.contains("free some space"), "{said}");
    disk.grow("64m");
    let rest = run();
    assert!(rest.status.success(), "{}", String::from_utf8_lossy(&rest.stderr));
}
