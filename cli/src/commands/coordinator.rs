//! `mllm4rec coordinator`: the role that takes jobs and gives out their work.

use std::sync::Arc;

use anyhow::{Context, Result};
use coordinator::core::Policy;
use coordinator::{Coordinator, Error, Options};
use data::store::Store;
use tracing::{info, warn};

use crate::args::Coordinator as Args;
use crate::cluster::digest_cache;
use crate::exit::BadRequest;
use crate::lock::RootLock;
use crate::observed::{Lifetime, open_door};
use crate::signals::{Signals, Told};
use crate::terminal::print;

/// Leads until a signal comes or another coordinator takes the root. A second signal ends it at once.
pub(crate) async fn run(args: Args) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let options = options(&args)?;
    let store = open(&args.root)?;
    let _lock = RootLock::take(&store)?;
    let watched = Arc::new(Lifetime::default());
    if let Some(listen) = args.observe {
        open_door(listen, watched.clone()).await?;
    }
    let coordinator = tokio::select! {
        started = Coordinator::start(store.clone(), options) => started?,
        told = signals.next() => return Ok(told.code()),
    };
    watched.leads(coordinator.observer());
    let (address, term, stopper) = (coordinator.address(), coordinator.term(), coordinator.stopper());
    let scheme = if args.listening.tls_cert.is_some() { "https" } else { "http" };
    print(format_args!("listening on {scheme}://{address}, root {}, term {term}", store.url()));
    if term == 1 {
        info!(root = store.url(), "nothing was there: this is a new root");
    }
    let mut ended = std::pin::pin!(coordinator.join());
    let told = tokio::select! {
        ended = &mut ended => {
            let deposed = matches!(ended, Err(Error::Deposed { .. }));
            let why = told_why(ended, store.url());
            if deposed && !args.linger.is_zero() {
                watched.deposed(format!("{why:#}"));
                return linger(args.linger, why, &mut signals).await;
            }
            return Err(why);
        }
        told = signals.next() => told,
    };
    info!(signal = ?told, "stopping; jobs and workers go on with the next coordinator of this root");
    stopper.cancel();
    tokio::select! {
        ended = &mut ended => ended?,
        again = signals.next() => leave_at_once(again),
    }
    Ok(told.code())
}

/// Waits to be told to leave. Whoever rolls out a new version does so in a moment, and would start this one again, against
/// the new one, if it ended by itself.
async fn linger(time: std::time::Duration, why: anyhow::Error, signals: &mut Signals) -> Result<u8> {
    warn!("{why:#}; staying for {time:?} to be told to leave");
    tokio::select! {
        () = tokio::time::sleep(time) => Err(why),
        told = signals.next() => Ok(told.code()),
    }
}

fn options(args: &Args) -> Result<Options> {
    let least = 3 * args.heartbeat;
    if args.heartbeat.is_zero() || args.dead_after < least {
        let words = format!(
            "--dead-after {:?} is too short: with --heartbeat {:?} it must be at least {least:?}, or workers that live \
             count as lost",
            args.dead_after, args.heartbeat
        );
        return Err(BadRequest(words).into());
    }
    let policy = Policy {
        dead_after: args.dead_after,
        suspect_after: args.suspect_after.max(2 * args.heartbeat).min(args.dead_after),
        last_call: args.last_call,
        // Workers that were cut off are back as soon as they would be missed.
        claim_grace: args.dead_after / 2,
        lease_target: std::time::Duration::from_secs(args.lease_seconds),
        quarantine_after: args.quarantine_after,
        max_worker_failures: args.max_worker_failures,
        max_training_failures: args.max_training_failures,
        ..Policy::default()
    };
    Ok(Options {
        listen: args.listening.listen,
        access: args.listening.access()?,
        policy,
        heartbeat: args.heartbeat,
        digest_cache: digest_cache(),
        lasting: true,
        store_patience: args.store_patience,
        step_patience: args.step_patience,
    })
}

/// A folder goes by its whole path: workers are told of it, and were started elsewhere.
fn open(root: &str) -> Result<Store> {
    let store = Store::open(root)?;
    match store.folder() {
        Some(folder) => {
            let path = folder.to_str().context("the path of the root is not UTF-8, workers cannot be told of it")?;
            Ok(Store::open(path)?)
        }
        None => Ok(store),
    }
}

/// Why a coordinator ended that nobody had told to.
fn told_why(ended: Result<(), Error>, root: &str) -> anyhow::Error {
    match ended {
        Err(Error::Deposed { own, newer }) => anyhow::anyhow!(
            "another coordinator leads {root} now (term {newer}, this one led term {own}), so this one stops. Jobs and \
             workers go on with the other; if that was not meant, see who else was started with this root"
        ),
        Err(e) => e.into(),
        Ok(()) => anyhow::anyhow!("the coordinator's server ended by itself: start it again"),
    }
}

fn leave_at_once(told: Told) {
    crate::terminal::print_error("told again: leaving at once");
    std::process::exit(told.code().into());
}
