//! Exit codes: what a script or a scheduler may conclude.

use proto::{EndpointError, FailureClass, JobState, JobStatus};

/// Everything is done.
pub(crate) const DONE: u8 = 0;
/// The job file is wrong; the same call will fail again.
pub(crate) const BAD_CONFIG: u8 = 64;
/// The data are wrong; the same call will fail again.
pub(crate) const BAD_DATA: u8 = 65;
/// Something outside failed; the same call may succeed.
pub(crate) const RETRY: u8 = 75;
/// So a worker ends whose job may do better another time, for the process that keeps several of them: it is not started again.
pub(crate) const JOB_MAY_PASS: u8 = 76;
/// Interrupted from the keyboard, or the job was cancelled; the same call resumes.
pub(crate) const INTERRUPTED: u8 = 130;
/// Told to leave, and left in order.
pub(crate) const DRAINED: u8 = 143;

/// The code for an error, from the kind of its cause.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(e) = cause.downcast_ref::<data::Error>() {
            return of_data(e);
        }
        if let Some(e) = cause.downcast_ref::<proto::EndpointError>() {
            return of_endpoint(e);
        }
        if let Some(worker::Error::Endpoint(e)) = cause.downcast_ref() {
            return of_endpoint(e);
        }
        if matches!(cause.downcast_ref(), Some(coordinator::Error::Access(_))) {
            return BAD_CONFIG;
        }
        if let Some(coordinator::Error::Data(e)) = cause.downcast_ref() {
            return of_data(e);
        }
        if matches!(cause.downcast_ref(), Some(coordinator::Error::NoJob { .. } | coordinator::Error::Removed { .. }))
            || cause.is::<BadRequest>()
        {
            return BAD_CONFIG;
        }
        if matches!(cause.downcast_ref(), Some(worker::Error::NoDevice { .. } | worker::Error::Refused(_))) {
            return BAD_CONFIG;
        }
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return BAD_CONFIG;
        }
        if let Some(worker::Error::JobEnded { may_pass, .. }) = cause.downcast_ref() {
            return if *may_pass { RETRY } else { BAD_DATA };
        }
        if cause.is::<Lasting>() || matches!(cause.downcast_ref(), Some(coordinator::Error::Record { .. })) {
            return BAD_DATA;
        }
        if let Some(failed) = cause.downcast_ref::<JobFailed>() {
            return if failed.may_pass { RETRY } else { BAD_DATA };
        }
        if cause.is::<JobCancelled>() {
            return INTERRUPTED;
        }
    }
    RETRY
}

fn of_data(error: &data::Error) -> u8 {
    match error {
        data::Error::Job(_) | data::Error::StoreUrl { .. } => BAD_CONFIG,
        e if e.may_pass() => RETRY,
        _ => BAD_DATA,
    }
}

fn of_endpoint(error: &EndpointError) -> u8 {
    match error {
        EndpointError::Answer { code: tonic::Code::FailedPrecondition, .. } => BAD_DATA,
        e if e.may_pass() => RETRY,
        _ => BAD_CONFIG,
    }
}

/// What the end of a job means to those who waited for it: nothing for one that succeeded, else an error.
pub(crate) fn verdict(status: &JobStatus) -> Result<(), anyhow::Error> {
    let (job, reason) = (status.job.0.clone(), status.reason.clone());
    match status.state {
        JobState::Succeeded => Ok(()),
        JobState::Cancelled => Err(JobCancelled { job, reason }.into()),
        JobState::Failed | JobState::Running => {
            let may_pass = status.failure == Some(FailureClass::Retry);
            Err(JobFailed { job, reason, may_pass }.into())
        }
    }
}

/// A stage of the job failed for good.
#[derive(Debug, thiserror::Error)]
#[error("job {job} failed in {reason}")]
pub(crate) struct JobFailed {
    /// The job.
    pub(crate) job: String,
    /// The stage and what it said.
    pub(crate) reason: String,
    /// Whether the same call may succeed.
    pub(crate) may_pass: bool,
}

/// Somebody cancelled the job. No scheduler shall take it up again by itself.
#[derive(Debug, thiserror::Error)]
#[error("job {job} was cancelled: {reason}; `mllm4rec resume {job}` takes it up again")]
pub(crate) struct JobCancelled {
    /// The job.
    job: String,
    /// What was said of it.
    reason: String,
}

/// No coordinator answers, at least not now.
#[derive(Debug, thiserror::Error)]
#[error(
    "no coordinator answers at {url}: {reason}; start one with `mllm4rec coordinator`, or name another with --coordinator{}",
    if url.starts_with("http:") && reason.contains("closed") { " (one that has certificates wants https://)" } else { "" }
)]
pub(crate) struct Away {
    /// Where it was looked for.
    pub(crate) url: String,
    /// What happened.
    pub(crate) reason: String,
}

/// The coordinator answers, and cannot do it now.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator cannot do this now: {0}")]
pub(crate) struct NotNow(pub(crate) String);

/// Something that lies under the root is not as it should be, and will not mend itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lasting(pub(crate) String);

/// What was asked for is wrong or does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadRequest(pub(crate) String);
