#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::process::Output;

use super::*;

/// A folder as the archive unpacks to one, whose programs are scripts.
struct Tree {
    folder: PathBuf,
}

impl Tree {
    fn new(name: &str, programs: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("mllm4rec-gpu-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        for (name, text) in programs {
            let path = folder.join("bin").join(name);
            write_script(&path).unwrap();
            fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
        }
        write_script(&folder.join(SCRIPT)).unwrap();
        Self { folder }
    }

    /// Runs the script on no card.
    fn run(&self, args: &[&str], settings: &[(&str, &str)]) -> Output {
        let mut command = Command::new("bash");
        command.arg(self.folder.join(SCRIPT)).args(args).current_dir(&self.folder).env_remove("OUT");
        // No Python has torch here.
        command.env("PYTHON", "false").env("MLLM4REC_TEST_DEVICE", "emulated").envs(settings.iter().copied());
        command.output().unwrap()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join("out").join(file)).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn every_step_is_told_and_none_stops_the_others() {
    let programs = [
        ("kernels-tests", "echo 'test result: FAILED. 1 passed; 1 failed'; exit 101"),
        ("model-tests", "sleep 20"),
        ("parity-tests", "echo \"test result: ok. on $MLLM4REC_TEST_DEVICE, fixtures in $MLLM4REC_FIXTURES\""),
        ("mllm4rec-bench", "echo \"$*\"; echo '2 of 2 cases ran' >&2"),
    ];
    let tree = Tree::new("steps", &programs);
    let said = tree.run(&[], &[("TESTS_SECONDS", "1")]);
    assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stdout));
    let summary = tree.read("summary.txt");
    let ended: BTreeMap<&str, &str> =
        summary.lines().filter_map(|line| Some((line.get(..28)?.trim(), line.split(" s  ").nth(1)?))).collect();
    let wanted = [
        ("tests kernels", "FAILED (exit code 101)"),
        ("tests model", "FAILED (took more than 1 s)"),
        ("tests parity", "passed"),
        ("bench all", "passed"),
    ];
    assert_eq!(ended, BTreeMap::from(wanted), "{summary}");
    let fixtures = tree.folder.join("fixtures");
    assert!(tree.read("tests-parity.log").contains(&format!("on emulated, fixtures in {}", fixtures.display())));
    let bench = tree.read("bench.log");
    assert!(bench.contains("--device emulated --tiny") && bench.contains("results.json"), "{bench}");
    assert!(tree.read("look.txt").contains("Python with torch: none found"));
}

#[test]
fn groups_of_benches_have_results_of_their_own() {
    let tree = Tree::new("groups", &[("mllm4rec-bench", "echo \"$*\"")]);
    let settings = [("MLLM4REC_TEST_DEVICE", "cuda"), ("ROUNDS", "3"), ("SUSTAINED_S", "5"), ("LAYERS", "4")];
    let said = tree.run(&["bench", "nf4", "ranker"], &settings);
    assert!(said.status.success());
    let bench = tree.read("bench.log");
    assert!(bench.contains("--only nf4,ranker") && bench.contains("results-nf4-ranker.json"), "{bench}");
    assert!(bench.contains("--rounds 3 --turn-ms 300 --sustained-s 5 --layers 4"), "{bench}");
    assert!(!tree.folder.join("out/tests-kernels.log").exists());
}

#[test]
fn the_script_tells_how_it_is_used() {
    let tree = Tree::new("help", &[]);
    let help = String::from_utf8(tree.run(&["help"], &[]).stdout).unwrap();
    assert!(help.contains("run.sh tests [NAME…]") && !help.contains("set -uo"), "{help}");
    assert_eq!(tree.run(&["dance"], &[]).status.code(), Some(64));
    assert_eq!(tree.run(&["tests", "dance"], &[]).status.code(), Some(1));
}

#[test]
fn the_twin_travels_with_all_its_parts() {
    let folder = std::env::temp_dir().join(format!("mllm4rec-gpu-twins-{}", std::process::id()));
    copy_folder(&root().join("bench/twins"), &folder).unwrap();
    for part in ["gpu.py", "lrurec.py", "benches/__init__.py", "benches/ranker.py"] {
        assert!(folder.join(part).is_file(), "{part}");
    }
    assert!(!folder.join("benches/__pycache__").exists());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_archive_that_is_too_large_is_an_error() {
    let path = std::env::temp_dir().join(format!("mllm4rec-gpu-archive-{}", std::process::id()));
    fs::write(&path, [0; 2_000_000]).unwrap();
    assert_eq!(check_size(&path, 2_000_000).unwrap(), 2_000_000);
    assert!(check_size(&path, 1_500_000).unwrap_err().to_string().ends_with("has 2.0 MB, and may have 1.5"));
    fs::remove_file(&path).unwrap();
}
