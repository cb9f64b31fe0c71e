//! Follows a job to its end, through the end of its coordinator if it comes back.

use std::time::{Duration, Instant};

use anyhow::Result;
use proto::JobStatus;
use serde_json::Value;

use crate::client::{Client, Watched};
use crate::connection::Reach;
use crate::exit::{self, Away, NotNow};
use crate::progress::{Printer, Progress};
use crate::signals::Told;
use crate::{status, tables, target};

/// How long a coordinator may be away before nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(500);

/// How following a job ended.
pub(crate) enum End {
    /// The job has ended.
    Over(Box<JobStatus>),
    /// Whoever follows it does not want to any more; the job goes on.
    Left(Told),
}

/// Calls `see` with every status of a job until it ends, or until a signal comes. What happens to the coordinator is
/// told through `printer`.
pub(crate) async fn follow(
    reach: &Reach,
    job: &str,
    printer: &Printer,
    mut see: impl FnMut(&JobStatus),
) -> Result<End> {
    let mut signals = crate::signals::Signals::listen()?;
    let mut away: Option<Instant> = None;
    let mut statuses: Option<Watched> = None;
    loop {
        let status = tokio::select! {
            told = signals.next() => return Ok(End::Left(told)),
            status = next(reach, job, &mut statuses) => status,
        };
        match status {
            Ok(status) => {
                if away.take().is_some() {
                    printer.line("the coordinator is back");
                }
                see(&status);
                if status.state.ended() {
                    return Ok(End::Over(Box::new(status)));
                }
            }
            Err(e) if (e.is::<Away>() || e.is::<NotNow>()) && away.is_none_or(|since| since.elapsed() < PATIENCE) => {
                statuses = None;
                if away.is_none() {
                    away = Some(Instant::now());
                    printer.line(&format!("{e:#}; looking for it for {} minutes", PATIENCE.as_secs() / 60));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(e) => return Err(e),
        }
    }
}

async fn next(reach: &Reach, job: &str, statuses: &mut Option<Watched>) -> Result<JobStatus> {
    if statuses.is_none() {
        *statuses = Some(Client::connect(reach).await?.watch(job).await?);
    }
    match statuses {
        Some(statuses) => statuses.next().await,
        None => anyhow::bail!("a stream that was just opened is gone"),
    }
}

/// Follows a job with bars or lines until it ends.
pub(crate) async fn show(reach: &Reach, job: &str) -> Result<End> {
    let printer = Printer::new();
    let mut progress = Progress::titled(printer.clone());
    let end = follow(reach, job, &printer, |status| progress.update(status)).await;
    progress.finish();
    if let Ok(End::Left(_)) = &end {
        printer.line(&format!("the job goes on; `mllm4rec cancel {job}` ends it"));
    }
    end
}

/// The report of a job that is done, if the store can be read from here.
pub(crate) async fn report(reach: &Reach, job: &str) -> Option<Value> {
    let root = Client::connect(reach).await.ok()?.info().await.ok()?.root;
    crate::commands::report(&target::store_of(&root).await.ok()?, job).await.ok()
}

/// Waits for the end of a job and says how it ended, in the words and with the exit code of that end.
pub(crate) async fn to_the_end(reach: &Reach, job: &str, json: bool) -> Result<u8> {
    let ended = match show(reach, job).await? {
        End::Over(status) => status,
        End::Left(told) => return Ok(told.code()),
    };
    if json {
        crate::terminal::print(format_args!("{:#}", status::job(&ended)));
    }
    exit::verdict(&ended)?;
    if !json {
        let report = report(reach, job).await;
        if let Some(report) = &report {
            crate::terminal::print(tables::results(report).trim_end());
        }
        crate::terminal::print(complete(report.as_ref(), &ended));
    }
    Ok(exit::DONE)
}

/// The words that end a job which has succeeded. What is put aside stands in its report; where that cannot be read, it is
/// told as the coordinator knows it.
pub(crate) fn complete(report: Option<&Value>, ended: &JobStatus) -> String {
    let job = &ended.job.0;
    let aside = report.and_then(status::aside_by_report).unwrap_or_else(|| status::aside_by_status(ended));
    let words = status::put_aside(job, &aside);
    let words = words.unwrap_or_else(|| format!("complete; `mllm4rec outputs {job}` names the folders of its tables"));
    format!("{job}: {words}")
}
