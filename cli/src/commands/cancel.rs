//! `mllm4rec cancel`: ends a job.

use anyhow::Result;
use coordinator::remembered;
use proto::{JobState, JobStatus};
use serde_json::json;

use crate::args::Cancel;
use crate::client::Client;
use crate::terminal::print;
use crate::{exit, target};

/// Cancels a job and waits until that is written down. One that has ended stays as it ended.
pub(crate) async fn run(args: Cancel) -> Result<u8> {
    let mut client = Client::connect(&args.reach).await?;
    let (job, store) = target::job_of(&mut client, &args.job).await?;
    let (before, ended) = match store {
        Some(store) => {
            let status = remembered(&store, &job).await?;
            (status.clone(), status)
        }
        None => end(&mut client, &job, &args.reason).await?,
    };
    let state = ended.state.name();
    if args.json {
        print(format_args!("{:#}", json!({"job": job, "state": state, "before": before.state.name()})));
    } else if before.state.ended() {
        print(format_args!("{job} had ended before: {state}"));
    } else if ended.state == JobState::Cancelled {
        print(format_args!("{job} is cancelled; what is done stays done, `mllm4rec resume {job}` takes it up again"));
    } else {
        print(format_args!("{job} {state} before it could be cancelled"));
    }
    Ok(exit::DONE)
}

/// The status before and after.
async fn end(client: &mut Client, job: &str, reason: &str) -> Result<(JobStatus, JobStatus)> {
    let mut statuses = client.watch(job).await?;
    let before = statuses.next().await?;
    if before.state.ended() {
        return Ok((before.clone(), before));
    }
    client.cancel(job, reason).await?;
    let over = async {
        loop {
            let status = statuses.next().await?;
            if status.state.ended() {
                return Ok((before, status));
            }
        }
    };
    client.telling_why(over).await
}
