//! Every command of `docs/operate.md`, as it stands there, one behind the other: the program is the real one, with a coordinator and a
//! worker of this machine; `kubectl` is real and has no server; `docker` is a stand-in.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mllm4rec_integration_tests::program::binary;
use mllm4rec_integration_tests::shop;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The commands of the blocks, and those that stand within the text, with a job's name where it says JOB and a job file where it says
/// FILE.
fn commands(text: &str) -> (String, Vec<String>) {
    let mut blocks = String::new();
    let mut inline = Vec::new();
    for (i, part) in text.split("```").enumerate() {
        if let Some(block) = part.strip_prefix("sh\n").filter(|_| i % 2 == 1) {
            blocks += block;
        } else if i % 2 == 0 {
            let spans = part.split('`').skip(1).step_by(2);
            let of_programs = |span: &&str| span.starts_with("kubectl ") || span.starts_with("mllm4rec ");
            // One word behind the program names a command and does not call it.
            let calls = spans.filter(of_programs).filter(|span| span.split(' ').count() > 2);
            inline.extend(calls.map(|span| span.replace("JOB", "movielens").replace("FILE", "configs/movielens.toml")));
        }
    }
    (blocks, inline)
}

#[test]
fn every_command_of_the_operators_page_works() {
    let Some(kubectl) = on_path("kubectl") else {
        println!("SKIPPED: the commands of docs/operate.md need kubectl");
        return;
    };
    let text = std::fs::read_to_string(project().join("docs/operate.md")).unwrap();
    let (blocks, inline) = commands(&text);
    assert!(blocks.lines().count() > 40 && inline.len() > 8, "the page has changed its form");
    let folder = tempfile::tempdir().unwrap();
    for name in ["k8s", "configs", "models", "Dockerfile"] {
        let copied = Command::new("cp").arg("-r").arg(project().join(name)).arg(folder.path()).status().unwrap();
        assert!(copied.success());
    }
    let inputs = folder.path().join("inputs");
    shop::write(&inputs.join("ml-latest-small"));
    std::os::unix::fs::symlink(project().join("models/demo-base"), inputs.join("llama")).unwrap();
    std::fs::create_dir(folder.path().join("root")).unwrap();
    std::os::unix::fs::symlink(inputs.join("ml-latest-small"), folder.path().join("ml-latest-small")).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let port = address.rsplit(':').next().unwrap();
    // Where it listens is not what is shown here, and another test may have the port.
    let blocks = blocks.replace("localhost:7070", &format!("localhost:{port}"));
    let script =
        format!("set -e\ntrap 'kill $(cat pids) 2>/dev/null || true' EXIT\nset -v\n{blocks}\n{}\n", inline.join("\n"));
    let path = format!(
        "{}:{}",
        project().join("integration-tests/tests/operate/bin").display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(&folder).env("PATH", path).env("BINARY", binary());
    command.env("REAL_KUBECTL", kubectl).env("OPERATE_LISTEN", &address).env("INPUTS", &inputs).env("HERE", &inputs);
    command.env("MLLM4REC_ROOT", folder.path().join("root")).env("XDG_CACHE_HOME", folder.path().join("cache"));
    let log = std::fs::File::create(folder.path().join("said")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let ended = command.status().unwrap();
    let said = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert!(
        ended.success(),
        "{ended}\n{}\n== coordinator\n{}\n== worker\n{}",
        said("said"),
        said("coordinator.log"),
        said("worker.log")
    );
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let text = std::fs::read_to_string(project().join("docs/operate.md")).unwrap();
    let rules = std::fs::read_to_string(project().join("k8s/components/prometheus/alerts.yaml")).unwrap();
    let named = |text: &str, before: &str| -> Vec<String> {
        let mut names: Vec<String> =
            text.lines().filter_map(|line| Some(line.trim().strip_prefix(before)?.to_owned())).collect();
        names.sort();
        names
    };
    assert_eq!(named(&rules, "- alert: "), named(&text, "### "));
    for name in named(&rules, "- alert: ") {
        assert!(rules.contains(&format!("docs/operate.md#{}", name.to_lowercase())), "{name} does not lead there");
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}
