//! The commands of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::core::Policy;

use crate::connection::{Listening, Reach};

/// `mllm4rec coordinator`
#[derive(Debug, clap::Args)]
pub(crate) struct Coordinator {
    /// Where tables, models and control objects go: a folder that all workers see, s3://, gs:// or az://.
    #[arg(long, value_name = "URL", env = "MLLM4REC_ROOT")]
    pub(crate) root: String,
    /// Time between two signs of life of a worker.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) heartbeat: Duration,
    /// A worker that is silent for so long is lost, and what it held goes to others.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) dead_after: Duration,
    /// A worker that is silent for so long, and for two heartbeats, gets nothing new before it speaks again.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub(crate) suspect_after: Duration,
    /// Once one worker is ready to train, others have so long to become ready and begin with it; later ones join in.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub(crate) last_call: Duration,
    /// A lease holds as many shards as take about so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Policy::default().lease_target.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) lease_seconds: u64,
    /// A shard of users that costs so many workers is put aside, as far as `limits.max_rejected` of the job allows.
    #[arg(long, value_name = "WORKERS", default_value_t = Policy::default().quarantine_after, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) quarantine_after: u32,
    /// A worker that fails so often in one training gets no part in it any more, unless nobody else is there. Workers that vanish or are told to leave
    /// have not failed.
    #[arg(long, value_name = "TIMES", default_value_t = Policy::default().max_worker_failures, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_worker_failures: u32,
    /// A training whose workers fail so often, all together, ends.
    #[arg(long, value_name = "TIMES", default_value_t = Policy::default().max_training_failures, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_training_failures: u32,
    /// How long work waits for a store that is away before it fails.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    pub(crate) store_patience: Duration,
    /// A step of a training that says nothing for so long, and for ten times as long as any lately, hangs.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) step_patience: Duration,
    /// When another coordinator takes the lead, stay for so long, not ready and doing nothing, before ending: whoever replaces this one
    /// tells it to leave meanwhile, and does not start it again.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) linger: Duration,
    /// A port for health and figures: /livez, /readyz and /metrics, without TLS and without a login. Nothing by default.
    #[arg(long, value_name = "ADDRESS", env = "MLLM4REC_OBSERVE")]
    pub(crate) observe: Option<SocketAddr>,
    /// Where it listens.
    #[command(flatten)]
    pub(crate) listening: Listening,
}

/// `mllm4rec submit`
#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    /// The job file.
    pub(crate) config: PathBuf,
    /// Override a key of the job file; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Wait for the end of the job and exit as it does.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON: what was submitted, or with --wait how it ended.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec ps`
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// List the workers too.
    #[arg(long)]
    pub(crate) workers: bool,
    /// List jobs too that ended before this coordinator began to lead.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec status`
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The job: its id, the beginning of one, or a name that only one job has.
    pub(crate) job: String,
    /// Show it live until the job ends, and exit as it does.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Print JSON; with --watch one line at every change.
    #[arg(long)]
    pub(crate) json: bool,
    /// What the store of this root remembers of it, without asking a coordinator.
    #[arg(long, value_name = "URL", conflicts_with = "watch")]
    pub(crate) root: Option<String>,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec logs`
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The job: its id, the beginning of one, or a name that only one job has.
    pub(crate) job: String,
    /// Go on until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print JSON; with --follow one line for each entry.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the job's root is: the coordinator is asked by default.
    #[arg(long, value_name = "URL")]
    pub(crate) root: Option<String>,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec cancel`
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The job: its id, the beginning of one, or a name that only one job has.
    pub(crate) job: String,
    /// Why, for whoever looks at the job later.
    #[arg(long, default_value = "cancelled from the command line")]
    pub(crate) reason: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `mllm4rec resume`
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The job: its id, the beginning of one, or a name that only one job has.
    pub(crate) job: String,
    /// Wait for the end of the job and exit as it does.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON: what was taken up, or with --wait how it ended.
    #[arg(long)]
    pub(crate) json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Reads `250ms`, `10s`, `5m`, `24h` or `7d`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let parsed =
        UNITS.iter().find_map(|(unit, ms)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*ms)));
    let allowed = || "write a number and ms, s, m, h or d, for example 24h".to_owned();
    parsed.flatten().map(Duration::from_millis).ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_says_is_as_the_coordinator_has_it() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            coordinator: Coordinator,
        }
        let Ok(line) = <Line as clap::Parser>::try_parse_from(["x", "--root", "runs"]) else {
            panic!("no other is needed")
        };
        let (said, policy) = (line.coordinator, Policy::default());
        assert_eq!((said.dead_after, said.dead_after / 2), (policy.dead_after, policy.claim_grace));
        assert_eq!((said.suspect_after, said.last_call), (policy.suspect_after, policy.last_call));
        assert_eq!(
            (said.lease_seconds, said.quarantine_after),
            (policy.lease_target.as_secs(), policy.quarantine_after)
        );
        assert_eq!(
            (said.max_worker_failures, said.max_training_failures),
            (policy.max_worker_failures, policy.max_training_failures)
        );
        assert_eq!(said.heartbeat, coordinator::Options::default().heartbeat);
    }

    #[test]
    fn times_are_read_with_their_units() {
        let read =
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)];
        for (text, ms) in read {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["10", "s", "1.5s", "-1s", "10 s", "99999999999999999999h", "9999999999999999999h", "1w"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
