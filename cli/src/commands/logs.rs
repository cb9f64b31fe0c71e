//! `mllm4rec logs`: what happened to a job, as the store keeps it.

use std::time::Duration;

use anyhow::Result;
use coordinator::journal::{self, Entry};
use coordinator::submissions;
use data::store::Store;
use serde_json::json;

use crate::args::Logs;
use crate::terminal::print;
use crate::{exit, target};

/// Time between two looks for new lines.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints the journal of a job.
pub(crate) async fn run(args: Logs) -> Result<u8> {
    let store = target::store(args.root.as_deref(), &args.reach).await?;
    let job = target::job_in(&store, &args.job).await?;
    if args.follow {
        return follow(&store, &job, args.json).await;
    }
    let (entries, _) = journal::read(&store, &job, None).await?;
    if args.json {
        print(format_args!("{:#}", json!(entries)));
    } else if entries.is_empty() {
        print(format_args!("nothing is written about {job} yet: a coordinator writes every few seconds"));
    } else {
        entries.iter().for_each(|entry| print(line(entry)));
    }
    Ok(exit::DONE)
}

/// Prints what is there and what comes, until the job has ended.
async fn follow(store: &Store, job: &str, json: bool) -> Result<u8> {
    let mut signals = crate::signals::Signals::listen()?;
    let mut after: Option<String> = None;
    loop {
        // Asked before: what is written until the end is then read after it.
        let active = submissions::is_active(store, job).await?;
        let (entries, last) = journal::read(store, job, after.as_deref()).await?;
        for entry in &entries {
            print(if json { json!(entry).to_string() } else { line(entry) });
        }
        after = last;
        if !active {
            return Ok(exit::DONE);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            told = signals.next() => return Ok(told.code()),
        }
    }
}

/// `2026-11-29 11:28:26 info  rank:test  worker-1  shard 3 done: 16 rows in 0.1 s`
fn line(entry: &Entry) -> String {
    let who = [&entry.stage, &entry.worker].into_iter().filter(|s| !s.is_empty());
    let mut parts = vec![format!("{} {:5}", utc(entry.at_ms), entry.level)];
    parts.extend(who.cloned());
    parts.push(entry.text.clone());
    parts.join("  ")
}

/// A time of the coordinator's clock in UTC.
fn utc(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = 365 + u64::from(leap(year));
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59");
        assert_eq!(utc(951_868_800_000), "2000-03-01 00:00:00");
        assert_eq!(utc(1_795_951_706_123), "2026-11-29 11:28:26");
        assert_eq!(utc(1_798_761_599_000), "2026-12-31 23:59:59");
    }
}
