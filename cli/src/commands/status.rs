//! `mllm4rec status`: how far a job is.

use anyhow::Result;
use coordinator::remembered;
use data::store::Store;
use proto::{JobState, JobStatus, StageState, StageStatus};

use crate::args::Status;
use crate::client::Client;
use crate::follow::{self, End};
use crate::progress::Printer;
use crate::terminal::print;
use crate::{exit, status, target};

/// Shows a job once, or until it ends.
pub(crate) async fn run(args: Status) -> Result<u8> {
    if let Some(root) = &args.root {
        let store = Store::open_existing(root)?;
        let status = remembered(&store, &target::job_in(&store, &args.job).await?).await?;
        return shown(&args, &status).await;
    }
    let mut client = Client::connect(&args.reach).await?;
    let (job, store) = target::job_of(&mut client, &args.job).await?;
    if let Some(store) = store {
        // Nobody has it in hand, so nothing will change.
        let status = remembered(&store, &job).await?;
        return shown(&args, &status).await;
    }
    if !args.watch {
        let status = client.watch(&job).await?.next().await?;
        return shown(&args, &with_figures(&mut client, status).await).await;
    }
    if !args.json {
        return follow::to_the_end(&args.reach, &job, false).await;
    }
    let line = |status: &JobStatus| print(status::job(status));
    match follow::follow(&args.reach, &job, &Printer::new(), line).await? {
        End::Over(status) => exit::verdict(&status).map(|()| exit::DONE),
        End::Left(told) => Ok(told.code()),
    }
}

/// What was done before the coordinator saw it has its figures in the store, if that can be read from here.
async fn with_figures(client: &mut Client, mut status: JobStatus) -> JobStatus {
    let lacks = |s: &StageStatus| s.state == StageState::Done && !s.reused && s.shards.all == 0;
    if !status.state.ended() || !status.stages.iter().any(lacks) {
        return status;
    }
    let kept = async {
        remembered(&target::store_of(&client.info().await?.root).await?, &status.job.0)
            .await
            .map_err(anyhow::Error::from)
    };
    let Ok(kept) = kept.await else { return status };
    for stage in status.stages.iter_mut().filter(|stage| lacks(stage)) {
        let Some(known) = kept.stages.iter().find(|known| known.digest == stage.digest) else { continue };
        (stage.progress, stage.shards) = (known.progress.clone(), known.shards);
        (stage.rejected, stage.quarantined) = (known.rejected.clone(), known.quarantined.clone());
    }
    status
}

/// Shows a status once; whoever waits for its end learns how that was.
async fn shown(args: &Status, status: &JobStatus) -> Result<u8> {
    match (args.json, args.watch) {
        (true, true) => print(status::job(status)),
        (true, false) => print(format_args!("{:#}", status::job(status))),
        (false, _) => print(status::page(status)),
    }
    if !args.json && status.state == JobState::Succeeded {
        let report = follow::report(&args.reach, &status.job.0).await;
        print(format_args!("\n{}", follow::complete(report.as_ref(), status)));
    }
    if args.watch && status.state.ended() {
        exit::verdict(status)?;
    }
    Ok(exit::DONE)
}
