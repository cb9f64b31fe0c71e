//! A job that is submitted, watched and computed over TLS, by processes that know each other by certificates.

use std::time::{Duration, SystemTime};

use data::job::Job;
use mllm4rec_integration_tests::program::{Workshop, terminate, wait};
use proto::pb::jobs_client::JobsClient;
use proto::pb::{SubmitRequest, WatchRequest};
use proto::{JobState, JobStatus};

use crate::observed::{CERTIFICATE, ask, figure, free};
use crate::site::{Site, printed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_done_over_tls() {
    let (site, workshop) = (Site::guarded(false).await, Workshop::open());
    let own = site.holder("worker");
    let observe = free();
    let mut worker = workshop.command(&["worker", "--devices", "cpu", "--threads", "1"]);
    worker.args(["--observe", &observe.to_string()]);
    worker.env("MLLM4REC_COORDINATOR", &own.url).env("MLLM4REC_TLS_CA", own.ca.unwrap());
    worker.env("MLLM4REC_TLS_CERT", own.cert.unwrap()).env("MLLM4REC_TLS_KEY", own.key.unwrap());
    let worker = worker.spawn().unwrap();

    let text = std::fs::read_to_string(workshop.job()).unwrap();
    let job = Job::parse("job.toml", &text, &["stages=[\"prepare\"]".to_owned()]).unwrap();
    let mut client = JobsClient::new(site.holder("operator").connect().await.unwrap());
    let id = client.submit(SubmitRequest { job_toml: job.to_toml() }).await.unwrap().into_inner().job_id;
    let mut statuses = client.watch(WatchRequest { job_id: id }).await.unwrap().into_inner();
    let ended = async {
        loop {
            let status =
                JobStatus::try_from(statuses.message().await.unwrap().expect("the job has not ended")).unwrap();
            if status.state.ended() {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(120), ended).await.expect("the job ends");
    assert_eq!(status.state, JobState::Succeeded, "{}", status.reason);

    let days_left = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        (figure(&ask(observe, "/metrics"), CERTIFICATE).unwrap() - now) / (24.0 * 60.0 * 60.0)
    };
    assert!((days_left() - 365.0).abs() < 1.0, "{}", days_left());
    let certs = site.path("certs").display().to_string();
    printed(&["certs", "--out", &certs, "--days", "10", "--add", "worker", "other"]);
    for ending in ["-key.pem", ".pem"] {
        let [from, to] = ["worker-other", "worker"].map(|name| site.certificate(&format!("{name}{ending}")));
        std::fs::copy(from, to).unwrap();
    }
    assert!(
        (days_left() - 10.0).abs() < 1.0,
        "the end of a certificate that was put in its place is told: {}",
        days_left()
    );
    terminate(worker.id());
    let output = tokio::task::spawn_blocking(move || wait(worker)).await.unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
}
