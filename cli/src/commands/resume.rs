//! `mllm4rec resume`: takes a job up again that failed or was cancelled.

use anyhow::Result;
use serde_json::json;

use crate::args::Resume;
use crate::client::Client;
use crate::terminal::{print, print_error};
use crate::{exit, follow, target};

/// Resumes a job as it was submitted, whatever its input files hold now.
pub(crate) async fn run(args: Resume) -> Result<u8> {
    let mut client = Client::connect(&args.reach).await?;
    let (job, _) = target::job_of(&mut client, &args.job).await?;
    let complete = client.resume(&job).await?.complete;
    if args.wait {
        return follow::to_the_end(&args.reach, &job, args.json).await;
    }
    if args.json {
        print(format_args!("{:#}", json!({"job": job, "complete": complete})));
        return Ok(exit::DONE);
    }
    print(&job);
    print_error(match complete {
        true => format!("every stage was done before; `mllm4rec outputs {job}` names the folders"),
        false => format!("taken up again; `mllm4rec status {job} --watch` shows how far it is"),
    });
    Ok(exit::DONE)
}
