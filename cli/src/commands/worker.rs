//! `mllm4rec worker`: the role that computes.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use worker::devices;

use crate::args::Worker;
use crate::exit;
use crate::terminal::print_error;

/// Works until the coordinator ends or a signal comes.
pub(crate) async fn run(args: Worker) -> Result<u8> {
    let devices = devices::choose(args.devices)?;
    // Who started this one has said it already.
    if let Some(note) = devices.note.as_ref().filter(|_| !args.with_parent) {
        print_error(note);
    }
    let stop = CancellationToken::new();
    let told = CancellationToken::new();
    tokio::spawn(wait_for_signal(stop.clone(), told.clone()));
    if args.with_parent {
        watch_parent(stop.clone());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (place, threads) = (devices.place(0), args.threads.unwrap_or(cores));
    let options = worker::Options {
        coordinator: args.reach.endpoint()?,
        name: args.name,
        device: place.to_string(),
        threads,
        spool: std::env::temp_dir().join(format!("mllm4rec-{}", std::process::id())),
        patience: Duration::from_secs(60),
        decoder: super::decoder()?,
    };
    let spool = options.spool.clone();
    let ended = worker::run(move || place.open(threads), options, stop).await;
    // What a stopped task left there; nothing durable lies in it.
    let _ = std::fs::remove_dir_all(&spool);
    ended?;
    Ok(if told.is_cancelled() { exit::DRAINED } else { exit::DONE })
}

/// Stops at SIGTERM or SIGINT: the work at hand is checkpointed and handed back.
async fn wait_for_signal(stop: CancellationToken, told: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
    told.cancel();
    stop.cancel();
    Ok(())
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
