//! A coordinator as commands see it: requests and answers without the wrapping of the wire.

use std::error::Error;
use std::time::Duration;

use anyhow::Result;
use proto::pb::jobs_client::JobsClient;
use proto::{Connection, Endpoint, EndpointError, Info, JobStatus, pb};
use tonic::Streaming;

use crate::connection::Reach;
use crate::exit::{Away, BadRequest, Lasting, NotNow};
use crate::terminal::print_error;

/// The largest answer: the statuses of thousands of jobs.
const LARGEST: usize = 64 << 20;
/// An answer that takes longer waits for something, which people want to know.
const SLOW: Duration = Duration::from_secs(5);

/// A connection to a coordinator.
#[derive(Clone)]
pub(crate) struct Client {
    jobs: JobsClient<Connection>,
    endpoint: Endpoint,
}

impl Client {
    /// Connects to the coordinator that was asked for.
    pub(crate) async fn connect(reach: &Reach) -> Result<Self> {
        Self::to(reach.endpoint()?).await
    }

    /// Connects.
    pub(crate) async fn to(endpoint: Endpoint) -> Result<Self> {
        let connection = endpoint.connect().await.map_err(away)?;
        Ok(Self { jobs: JobsClient::new(connection).max_decoding_message_size(LARGEST), endpoint })
    }

    /// Where the coordinator is.
    pub(crate) fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Hands over a job.
    pub(crate) async fn submit(&mut self, job_toml: String) -> Result<pb::SubmitReply> {
        let mut jobs = self.jobs.clone();
        let reply = self.telling_why(jobs.submit(pb::SubmitRequest { job_toml })).await;
        Ok(reply.map_err(|s| self.said(&s))?.into_inner())
    }

    /// Waits for an answer, and says what the coordinator waits for if that takes long.
    pub(crate) async fn telling_why<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        loop {
            match tokio::time::timeout(SLOW, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let waiting = self.info().await.map(|info| info.waiting).unwrap_or_default();
                    if !waiting.is_empty() {
                        print_error(format_args!("the coordinator waits for its store: {waiting}"));
                        return answer.await;
                    }
                }
            }
        }
    }

    /// Takes up a job again that failed or was cancelled.
    pub(crate) async fn resume(&mut self, job: &str) -> Result<pb::SubmitReply> {
        let mut jobs = self.jobs.clone();
        let reply = self.telling_why(jobs.resume(pb::ResumeRequest { job_id: job.to_owned() })).await;
        Ok(reply.map_err(|s| self.said(&s))?.into_inner())
    }

    /// Ends a job.
    pub(crate) async fn cancel(&mut self, job: &str, reason: &str) -> Result<()> {
        let request = pb::CancelRequest { job_id: job.to_owned(), reason: reason.to_owned() };
        self.jobs.cancel(request).await.map_err(|s| self.said(&s))?;
        Ok(())
    }

    /// Every job that the coordinator has had in hand since it began to lead.
    pub(crate) async fn list(&mut self) -> Result<Vec<JobStatus>> {
        let reply = self.jobs.list(pb::ListRequest {}).await.map_err(|s| self.said(&s))?.into_inner();
        reply.jobs.into_iter().map(|job| JobStatus::try_from(job).map_err(Into::into)).collect()
    }

    /// What the coordinator says of itself.
    pub(crate) async fn info(&mut self) -> Result<Info> {
        let reply = self.jobs.info(pb::InfoRequest {}).await.map_err(|s| self.said(&s))?.into_inner();
        Ok(reply.into())
    }

    /// The status of a job now and after every change.
    pub(crate) async fn watch(&mut self, job: &str) -> Result<Watched> {
        let request = pb::WatchRequest { job_id: job.to_owned() };
        let statuses = self.jobs.watch(request).await.map_err(|s| self.said(&s))?.into_inner();
        Ok(Watched { statuses, client: self.clone() })
    }

    /// What the coordinator said, or that it does not answer.
    fn said(&self, status: &tonic::Status) -> anyhow::Error {
        // What comes over the wire has no cause here; what the wire itself fails of has one.
        if status.code() == tonic::Code::Unavailable && status.source().is_none() {
            return NotNow(status.message().to_owned()).into();
        }
        match self.endpoint.explain(status) {
            EndpointError::Answer { code, words } => match code {
                tonic::Code::InvalidArgument | tonic::Code::NotFound => BadRequest(words).into(),
                tonic::Code::Unimplemented => {
                    let url = &self.endpoint.url;
                    Lasting(format!("the coordinator at {url} does not know this request: it is of another version"))
                        .into()
                }
                tonic::Code::FailedPrecondition => Lasting(words).into(),
                _ => NotNow(words).into(),
            },
            other => away(other),
        }
    }
}

/// The statuses of a job, one after the other.
pub(crate) struct Watched {
    statuses: Streaming<pb::JobStatus>,
    client: Client,
}

impl Watched {
    /// The next one. After the last there is nobody to ask: a stream that ends early has lost its coordinator.
    pub(crate) async fn next(&mut self) -> Result<JobStatus> {
        let status = self.statuses.message().await.map_err(|s| self.client.said(&s))?;
        let ended = || Away { url: self.client.endpoint.url.clone(), reason: "it has ended".to_owned() };
        let status = status.ok_or_else(ended)?;
        Ok(JobStatus::try_from(status)?)
    }
}

/// Silence is a coordinator that is away; everything else says what is wrong.
fn away(error: EndpointError) -> anyhow::Error {
    match error {
        EndpointError::Unreachable { url, reason } => Away { url, reason }.into(),
        other => other.into(),
    }
}
