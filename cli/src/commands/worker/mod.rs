//! `mllm4rec worker`: the role that computes.

mod fleet;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use tracing::info;
use worker::devices;

use crate::args::Worker;
use crate::exit;
use crate::observed::open_door;
use crate::signals::{Signals, Told};
use crate::terminal::print_error;
use fleet::Fleet;

/// Works until the coordinator ends or a signal comes.
pub(crate) async fn run(args: Worker) -> Result<u8> {
    let signals = Signals::listen()?;
    let devices = devices::choose(args.devices)?;
    // Who started this one has said it already.
    if let Some(note) = devices.note.as_ref().filter(|_| !args.with_parent) {
        print_error(note);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = args.count.map_or(devices.places.len(), |count| count as usize);
    if count > 1 {
        let (called, name) = (std::env::args_os().skip(1).collect(), args.name.unwrap_or_else(name));
        let threads = args.threads.unwrap_or((cores / count).max(1));
        let Worker { peers, observe, .. } = args;
        return Fleet { args: called, name, devices, count, peers, observe, threads }.run(signals).await;
    }
    let stop = CancellationToken::new();
    let spool = std::env::temp_dir().join(format!("mllm4rec-{}", std::process::id()));
    let told = heed(signals, stop.clone(), spool.clone());
    if args.with_parent {
        watch_parent(stop.clone());
    }
    let coordinator = args.reach.endpoint()?;
    let observer = worker::Observer::of_certificate(coordinator.cert.clone());
    let (place, threads) = (devices.place(0), args.threads.unwrap_or(cores));
    let options = worker::Options {
        coordinator,
        name: args.name.unwrap_or_else(name),
        device: place.to_string(),
        threads,
        spool: spool.clone(),
        patience: args.patience.map_or(Duration::MAX, Duration::from_secs),
        decoder: super::decoder()?,
        peers: args.peers,
        observer: observer.clone(),
        job: args.job,
    };
    if let Some(listen) = args.observe {
        open_door(listen, Arc::new(observer.clone())).await?;
    }
    let leaving = stop.clone();
    tokio::spawn(async move {
        leaving.cancelled().await;
        observer.leaves();
    });
    let ended = worker::run(move || place.open(threads), options, stop).await;
    // What a stopped task left there; nothing durable lies in it.
    let _ = std::fs::remove_dir_all(&spool);
    match ended {
        Err(e @ worker::Error::JobEnded { may_pass: true, .. }) if args.with_parent => {
            print_error(&e);
            return Ok(exit::JOB_MAY_PASS);
        }
        ended => ended?,
    }
    Ok(told.get().map_or(exit::DONE, |told| told.code()))
}

/// The first signal stops the worker: the work at hand is checkpointed and handed back. A second one does not wait for
/// that: the coordinator finds the worker gone, and gives what it held to others.
fn heed(mut signals: Signals, stop: CancellationToken, spool: PathBuf) -> Arc<OnceLock<Told>> {
    let first = Arc::new(OnceLock::new());
    let told = first.clone();
    tokio::spawn(async move {
        let _ = told.set(signals.next().await);
        info!("told to leave: handing back what is at work");
        stop.cancel();
        let again = signals.next().await;
        print_error("told again: leaving at once");
        let _ = std::fs::remove_dir_all(&spool);
        std::process::exit(again.code().into());
    });
    first
}

/// The machine and the process, for people.
fn name() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let machine = machine.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("{}-{}", machine.as_deref().unwrap_or("worker"), std::process::id())
}

/// Stops when standard input is closed.
fn watch_parent(stop: CancellationToken) {
    tokio::spawn(async move {
        let mut byte = [0_u8; 1];
        let mut stdin = tokio::io::stdin();
        while matches!(stdin.read(&mut byte).await, Ok(n) if n > 0) {}
        stop.cancel();
    });
}
