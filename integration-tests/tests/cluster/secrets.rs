//! Secrets stay out of what is printed and logged, and what people do goes into the audit log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use data::job::Job;
use mllm4rec_integration_tests::program::Workshop;
use proto::pb::jobs_client::JobsClient;
use proto::pb::{CancelRequest, SubmitRequest};
use tracing_subscriber::fmt::MakeWriter;

use crate::site::{Site, list, submit_nonsense};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that any library of this process says goes into the log, at every level; other tests of it do, too. The names
/// here are this test's own.
#[tokio::test]
async fn a_token_is_in_no_log_and_every_change_is_in_one() {
    let log = Log::default();
    let everything = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    tracing::subscriber::set_global_default(everything.with_writer(log.clone()).finish()).unwrap();

    let site = Site::guarded(true).await;
    let (token, viewing) = (site.token("submitter", "carol"), site.token("viewer", "dave"));
    let (carol, dave) = (site.bearer(&token), site.bearer(&viewing));
    assert_eq!(list(&carol).await.unwrap(), 0);
    submit_nonsense(&carol).await;
    submit_nonsense(&dave).await;
    list(&site.bearer("m4r_this-one-is-wrong")).await.unwrap_err();

    let workshop = Workshop::open();
    let job = std::fs::read_to_string(workshop.job()).unwrap();
    let sets = ["stages=[\"prepare\"]".to_owned()];
    let job = Job::parse("job.toml", &job, &sets).unwrap().to_toml();
    let mut client = JobsClient::new(carol.connect().await.unwrap());
    let id = client.submit(SubmitRequest { job_toml: job }).await.unwrap().into_inner().job_id;
    client.cancel(CancelRequest { job_id: id.clone(), reason: "test".into() }).await.unwrap();

    let text = log.text();
    assert!(text.contains("h2"), "the log does not hold what libraries say");
    for secret in [&token[..], &viewing, "m4r_this-one-is-wrong", "BEGIN PRIVATE KEY"] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
    assert!(!format!("{carol:?}").contains(&token), "a secret is in the debug text");
    let audit: Vec<&str> = text.lines().filter(|line| line.contains(" audit: ")).collect();
    let told = |words: &[&str]| audit.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    let (submitted, cancelled) = ("method=\"Submit\"", "method=\"Cancel\"");
    assert_eq!(told(&["who=\"carol\"", "role=\"submitter\"", submitted, &format!("job=\"{id}\"")]), 1, "{audit:?}");
    assert_eq!(told(&["who=\"carol\"", "role=\"submitter\"", cancelled, &format!("job=\"{id}\"")]), 1, "{audit:?}");
    assert_eq!(told(&["refused", "dave (viewer) may not call Submit"]), 1, "{audit:?}");
    assert!(told(&["refused", "the token is not known"]) >= 1, "{audit:?}");
}
