//! A coordinator as commands see it: requests and answers without the wrapping of the wire.

use std::error::Error;
use std::time::Duration;

use anyhow::Result;
use proto::pb::jobs_client::JobsClient;
use proto::{Info, JobStatus, pb};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::connection::Reach;
use crate::exit::{Away, BadRequest, Lasting, NotNow};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long silence may last before the coordinator is asked for a sign of life, and how long that may take.
const QUIET: Duration = Duration::from_secs(5);
/// The largest answer: the statuses of thousands of jobs.
const LARGEST: usize = 64 << 20;

/// A connection to a coordinator.
#[derive(Clone)]
pub(crate) struct Client {
    jobs: JobsClient<Channel>,
    url: String,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(reach: &Reach) -> Result<Self> {
        let url = reach.url();
        let unusable = |e: tonic::transport::Error| BadRequest(format!("--coordinator {url}: {}", root_cause(&e)));
        let endpoint = Endpoint::from_shared(url.clone()).map_err(unusable)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(QUIET)
            .keep_alive_timeout(QUIET)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|e| away(&url, &root_cause(&e)))?;
        Ok(Self { jobs: JobsClient::new(channel).max_decoding_message_size(LARGEST), url })
    }

    /// Hands over a job.
    pub(crate) async fn submit(&mut self, job_toml: String) -> Result<pb::SubmitReply> {
        let reply = self.jobs.submit(pb::SubmitRequest { job_toml }).await;
        Ok(reply.map_err(|s| self.said(&s))?.into_inner())
    }

    /// Takes up a job again that failed or was cancelled.
    pub(crate) async fn resume(&mut self, job: &str) -> Result<pb::SubmitReply> {
        let reply = self.jobs.resume(pb::ResumeRequest { job_id: job.to_owned() }).await;
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
        let words = status.message().to_owned();
        match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::NotFound => BadRequest(words).into(),
            tonic::Code::FailedPrecondition => Lasting(words).into(),
            tonic::Code::Unimplemented => {
                Lasting(format!("the coordinator at {} does not know this request: it is of another version", self.url))
                    .into()
            }
            // What comes over the wire has no cause here; what the wire itself fails of has one.
            tonic::Code::Unavailable if status.source().is_none() => NotNow(words).into(),
            _ => away(&self.url, &words).into(),
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
        let status = status.ok_or_else(|| away(&self.client.url, "it has ended"))?;
        Ok(JobStatus::try_from(status)?)
    }
}

fn away(url: &str, reason: &str) -> Away {
    Away { url: url.to_owned(), reason: reason.to_owned() }
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
