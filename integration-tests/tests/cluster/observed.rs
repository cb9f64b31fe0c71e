//! What processes tell those who watch them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use crate::cluster::{Cluster, until};

/// Files that name figures, and do not make any.
const FILES: [&str; 3] = [
    "k8s/components/prometheus/alerts.yaml",
    "k8s/components/prometheus/dashboard.json",
    "k8s/components/keda/scaling.yaml",
];
/// Figures that this job does not have: it puts no row aside, there is no card, and nobody shows a certificate (`secured_job` has one).
const ELSEWHERE: [&str; 4] =
    ["mllm4rec_rows_put_aside", "mllm4rec_bad_rows_total", "mllm4rec_gpu_mem_free_bytes", CERTIFICATE];
/// The figure of the end of a certificate.
pub(crate) const CERTIFICATE: &str = "mllm4rec_certificate_expiration_timestamp_seconds";

/// An address that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The answer to a question, or nothing while nobody listens.
pub(crate) fn ask(address: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return answer };
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn is(answer: &str, status: u16) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
}

/// The value of a figure without labels, or with these.
pub(crate) fn figure(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn a_cluster_tells_health_and_figures() {
    let mut cluster = Cluster::new();
    let [of_coordinator, of_worker] = [free(), free()];
    let [at, worker_at] = [of_coordinator, of_worker].map(|address| address.to_string());
    let coordinator = cluster.coordinator_with(&["--observe", &at]);
    until("the coordinator leads", || is(&ask(of_coordinator, "/readyz"), 200));
    let before = ask(of_coordinator, "/metrics");
    assert_eq!(figure(&before, "mllm4rec_leader_epoch"), Some(1.0), "{before}");
    assert_eq!(figure(&before, "mllm4rec_workers{state=\"idle\"}"), Some(0.0), "{before}");
    let job = cluster.submit();
    until("the job runs", || ask(of_coordinator, "/metrics").contains("mllm4rec_jobs{state=\"running\"} 1"));

    let _worker = cluster.worker_with(&["--observe", &worker_at]);
    until("the worker is ready", || is(&ask(of_worker, "/readyz"), 200));
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut trained = false;
    until("a training has told its steps", || {
        let pages = [of_coordinator, of_worker].map(|address| ask(address, "/metrics"));
        names.extend(pages.iter().flat_map(|page| named(page)));
        trained |= figure(&pages[1], "mllm4rec_step_seconds_count").is_some_and(|steps| steps > 0.0);
        trained && pages[0].contains(&format!("job_id=\"{job}\""))
    });
    names.extend(ELSEWHERE.map(str::to_owned));
    for file in FILES {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap();
        let unknown: Vec<String> = named(&text).into_iter().filter(|name| !names.contains(name)).collect();
        assert!(
            !named(&text).is_empty() && unknown.is_empty(),
            "{file} names {unknown:?}, which nobody tells: {names:?}"
        );
    }
    // Nothing else is there, and nothing can be changed.
    assert!(is(&ask(of_coordinator, "/"), 404) && is(&ask(of_worker, "/jobs"), 404));
    let ended = |page: &str, state: &str| figure(page, &format!("mllm4rec_jobs_ended_total{{state=\"{state}\"}}"));
    let _ = cluster.call(&["cancel", &job]);
    until("the end of the job is counted", || {
        let page = ask(of_coordinator, "/metrics");
        assert_eq!(ended(&page, "failed"), Some(0.0), "{page}");
        // It may have been faster than we are.
        ["cancelled", "succeeded"].iter().any(|state| ended(&page, state) == Some(1.0))
    });
    drop(coordinator);
    until("the worker has no coordinator", || ask(of_worker, "/readyz").ends_with("no coordinator\n"));
    assert!(is(&ask(of_worker, "/readyz"), 503));
    assert!(is(&ask(of_worker, "/livez"), 200), "a coordinator that is away is no reason to restart workers");
}

/// The figures that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = told.join("\n");
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("mllm4rec_") && *word != "mllm4rec_").map(str::to_owned).collect()
}
