//! gRPC: generated types and status codes stop here.

use std::pin::Pin;

use data::job::Job;
use futures::{Stream, StreamExt};
use proto::pb::jobs_server::{Jobs, JobsServer};
use proto::pb::workers_server::{Workers, WorkersServer};
use proto::{ANSWER, FailureClass, FromWorker, JobId, JobStatus, PROTOCOL, QUIET, ToWorker, WorkerId, pb};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::access::{Caller, Door};
use crate::core::Event;
use crate::inbox::{Input, said};
use crate::{Error, Result};

/// Sessions of one connection: a proxy may put those of many workers onto one, and what is more than that would wait.
const SESSIONS: u32 = 4096;

type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves clients and workers until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Door,
    inbox: mpsc::Sender<Input>,
    stop: CancellationToken,
) -> Result<()> {
    let service = Service { inbox };
    tonic::transport::Server::builder()
        .max_concurrent_streams(SESSIONS)
        .http2_keepalive_interval(Some(QUIET))
        .http2_keepalive_timeout(Some(ANSWER))
        .layer(door.guard())
        .add_service(JobsServer::new(service.clone()))
        .add_service(WorkersServer::new(service))
        .serve_with_incoming_shutdown(door.connections(listener, stop.clone()), stop.cancelled_owned())
        .await
        .map_err(|e| Error::Server(e.to_string()))
}

#[derive(Clone)]
struct Service {
    inbox: mpsc::Sender<Input>,
}

impl Service {
    async fn send(&self, input: Input) -> Result<(), Status> {
        self.inbox.send(input).await.map_err(|_| Status::unavailable("the coordinator is stopping"))
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(input(reply)).await?;
        answer.await.map_err(|_| Status::unavailable("the coordinator is stopping"))
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        let caller = Caller::of(&request);
        let job = Job::parse("job", &request.into_inner().job_toml, &[]).map_err(|e| status(&e.into()))?;
        let (id, complete) = self.ask(|reply| Input::Submit(Box::new(job), reply)).await?.map_err(|e| status(&e))?;
        caller.changed("Submit", &id.0);
        Ok(Response::new(pb::SubmitReply { job_id: id.0, complete }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::JobStatus>, Status> {
        let id = request.into_inner().job_id;
        let status = self.watcher(&id).await?.borrow().clone();
        Ok(Response::new(status.into()))
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Result<Response<pb::ListReply>, Status> {
        let jobs = self.ask(Input::List).await?;
        Ok(Response::new(pb::ListReply { jobs: jobs.into_iter().map(Into::into).collect() }))
    }

    type WatchStream = Sent<pb::JobStatus>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = request.into_inner().job_id;
        let seen = WatchStream::new(self.watcher(&id).await?);
        // The last status goes out, then the stream ends.
        let statuses = seen.scan(false, |ended, status| {
            let goes = !*ended;
            *ended = status.state.ended();
            std::future::ready(goes.then(|| Ok(pb::JobStatus::from(status))))
        });
        Ok(Response::new(Box::pin(statuses)))
    }

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Result<Response<pb::CancelReply>, Status> {
        let caller = Caller::of(&request);
        let pb::CancelRequest { job_id, reason } = request.into_inner();
        self.watcher(&job_id).await?;
        caller.changed("Cancel", &job_id);
        self.send(Input::Event(Event::Cancelled { job: JobId(job_id), reason })).await?;
        Ok(Response::new(pb::CancelReply {}))
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        let caller = Caller::of(&request);
        let id = JobId(request.into_inner().job_id);
        let (id, complete) = self.ask(|reply| Input::Resume(id, reply)).await?.map_err(|e| status(&e))?;
        caller.changed("Resume", &id.0);
        Ok(Response::new(pb::SubmitReply { job_id: id.0, complete }))
    }

    async fn info(&self, _: Request<pb::InfoRequest>) -> Result<Response<pb::InfoReply>, Status> {
        Ok(Response::new(self.ask(Input::Info).await?.into()))
    }
}

impl Service {
    async fn watcher(&self, id: &str) -> Result<tokio::sync::watch::Receiver<JobStatus>, Status> {
        let found = self.ask(|reply| Input::Watch(JobId(id.to_owned()), reply)).await?;
        found.ok_or_else(|| Status::not_found(format!("there is no job {id} at this coordinator")))
    }
}

#[tonic::async_trait]
impl Workers for Service {
    type SessionStream = Sent<pb::CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut said = request.into_inner();
        let first =
            said.message().await?.ok_or_else(|| Status::invalid_argument("the session ended before it began"))?;
        let register = match FromWorker::try_from(first) {
            Ok(FromWorker::Register(register)) => register,
            Ok(_) => return Err(Status::failed_precondition("a session begins with a registration")),
            Err(e) => return Err(Status::invalid_argument(e.to_string())),
        };
        if register.protocol != PROTOCOL {
            let reason = format!(
                "this coordinator ({}) speaks protocol {PROTOCOL}, the worker ({}) {}: run the same version on both sides",
                env!("CARGO_PKG_VERSION"),
                register.build,
                register.protocol
            );
            return Err(Status::failed_precondition(reason));
        }
        let (to, from_coordinator) = mpsc::channel(64);
        let (name, threads, claims) = (register.name.clone(), register.threads, register.claims.len());
        let worker = self.ask(|reply| Input::Join(register, to, reply)).await?;
        info!(%worker, name, threads, claims, "worker joined");
        tokio::spawn(listen(self.inbox.clone(), worker, said));
        let messages = ReceiverStream::new(from_coordinator).map(|m: ToWorker| Ok(pb::CoordinatorMessage::from(m)));
        Ok(Response::new(Box::pin(messages)))
    }
}

/// Passes on what a worker says until its stream ends.
async fn listen(inbox: mpsc::Sender<Input>, worker: WorkerId, mut stream: Streaming<pb::WorkerMessage>) {
    loop {
        match stream.message().await {
            Ok(Some(message)) => match FromWorker::try_from(message) {
                Ok(message) => {
                    if inbox.send(said(worker, message)).await.is_err() {
                        return;
                    }
                }
                Err(e) => {
                    warn!(%worker, error = %e, "worker broke the contract");
                    break;
                }
            },
            Ok(None) => break,
            Err(e) => {
                info!(%worker, reason = e.message(), "worker's stream broke");
                break;
            }
        }
    }
    let _ = inbox.send(Input::Event(Event::Left(worker))).await;
}

fn status(error: &Error) -> Status {
    match error {
        Error::Data(
            data::Error::Job(_)
            | data::Error::Read { .. }
            | data::Error::MissingInput { .. }
            | data::Error::AmbiguousInput { .. },
        ) => Status::invalid_argument(error.to_string()),
        Error::Earlier { .. } | Error::PublishIntoRoot { .. } => Status::invalid_argument(error.to_string()),
        Error::NoJob { .. } => Status::not_found(error.to_string()),
        Error::Deposed { .. } | Error::Server(_) => Status::unavailable(error.to_string()),
        _ if error.class() == FailureClass::Retry => Status::unavailable(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}
