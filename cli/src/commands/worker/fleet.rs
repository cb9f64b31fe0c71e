//! Several workers on one machine, one for each device: processes of their own, so that none takes others with it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use worker::devices::Choice;

use crate::exit;
use crate::signals::Signals;

/// Time before a worker is started again that has ended by itself: its device may need a moment.
const PAUSE: Duration = Duration::from_secs(2);

/// A worker that ends so has nothing more to do, or nothing that it could do.
const FOR_GOOD: [u8; 4] = [exit::DONE, exit::BAD_CONFIG, exit::BAD_DATA, exit::JOB_MAY_PASS];

/// What all workers of a machine share.
pub(crate) struct Fleet {
    /// How this program was called: what the workers are told comes behind it and counts.
    pub(crate) args: Vec<OsString>,
    /// The beginning of their names.
    pub(crate) name: String,
    /// The devices, which they take in turn.
    pub(crate) devices: Choice,
    /// How many they are.
    pub(crate) count: usize,
    /// Where other workers find the first of them.
    pub(crate) peers: Option<String>,
    /// Where the first of them is asked for health and figures.
    pub(crate) observe: Option<SocketAddr>,
    /// Compute threads of each.
    pub(crate) threads: usize,
}

impl Fleet {
    /// Keeps the workers going until a signal comes, one of them is refused, or the coordinator has let all of them go.
    pub(crate) async fn run(self, mut signals: Signals) -> Result<u8> {
        let stop = CancellationToken::new();
        let (ended, mut ends) = mpsc::channel(self.count);
        for i in 0..self.count {
            // The first start tells what is wrong with all of them.
            let (child, ended) = (self.spawn(i)?, ended.clone());
            let again = self.command(i)?;
            tokio::spawn(keep(child, again, stop.clone(), ended));
        }
        drop(ended);
        let (mut code, mut ends_of_all) = (exit::DONE, Vec::new());
        loop {
            tokio::select! {
                told = signals.next() => {
                    if stop.is_cancelled() {
                        return Ok(told.code()); // told again: at once
                    }
                    info!("told to leave: the workers hand back what is at work");
                    code = told.code();
                    stop.cancel();
                }
                end = ends.recv() => match end {
                    Some(end) if end.code() == Some(exit::BAD_CONFIG.into()) && code == exit::DONE => {
                        code = exit::BAD_CONFIG;
                        stop.cancel();
                    }
                    Some(end) => ends_of_all.push(end.code()),
                    None if code == exit::DONE => return Ok(verdict(&ends_of_all)),
                    None => return Ok(code),
                },
            }
        }
    }

    fn spawn(&self, i: usize) -> Result<Child> {
        self.command(i)?.spawn().with_context(|| format!("cannot start worker {}", i + 1))
    }

    fn command(&self, i: usize) -> Result<Command> {
        let program = std::env::current_exe().context("cannot find this program to start workers")?;
        let mut command = Command::new(program);
        command
            .args(&self.args)
            .args(["--with-parent", "--count", "1", "--devices", &self.devices.place(i).to_string()])
            .args(["--name", &format!("{}-{}", self.name, i + 1), "--threads", &self.threads.to_string()])
            .stdin(Stdio::piped())
            .kill_on_drop(true);
        if let Some(peers) = &self.peers {
            command.args(["--peers", &door(peers, i)]);
        }
        if let Some(mut observe) = self.observe {
            if observe.port() > 0 {
                let port = usize::from(observe.port()) + i;
                let beyond = |_| {
                    exit::BadRequest(format!("--observe: worker {} would have port {port}, and there is none", i + 1))
                };
                observe.set_port(u16::try_from(port).map_err(beyond)?);
            }
            command.args(["--observe", &observe.to_string()]);
        }
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        Ok(command)
    }
}

/// What the ends of all workers come to that ended by themselves; without any, none could be kept going.
fn verdict(ends: &[Option<i32>]) -> u8 {
    let ended_with = |code: &u8| ends.contains(&Some((*code).into()));
    [exit::BAD_DATA, exit::DONE].into_iter().find(ended_with).unwrap_or(exit::RETRY)
}

/// Where others find a worker: with a port, every one listens on one of its own.
fn door(peers: &str, i: usize) -> String {
    match peers.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if port > 0 => format!("{host}:{}", usize::from(port) + i),
        _ => peers.to_owned(),
    }
}

/// Starts a worker again whenever it ends by itself, until it is to stop or there is no sense in it.
async fn keep(mut child: Child, mut again: Command, stop: CancellationToken, ended: mpsc::Sender<ExitStatus>) {
    loop {
        // A worker leaves in order when its standard input is closed, which waiting for it would do.
        let line = child.stdin.take();
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => {
                drop(line);
                child.wait().await
            }
        };
        let Ok(status) = status else { return };
        let for_good = FOR_GOOD.map(|code| Some(code.into())).contains(&status.code());
        if stop.is_cancelled() || for_good {
            let _ = ended.send(status).await;
            return;
        }
        warn!(%status, "a worker ended, starting it again");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
        child = match again.spawn() {
            Ok(child) => child,
            Err(e) => {
                warn!(error = %e, "cannot start a worker again");
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_all_come_to_one_code() {
        let [done, data, may_pass] = [exit::DONE, exit::BAD_DATA, exit::JOB_MAY_PASS].map(|code| Some(i32::from(code)));
        assert_eq!(verdict(&[done, done]), exit::DONE);
        assert_eq!(verdict(&[may_pass, data]), exit::BAD_DATA);
        assert_eq!(verdict(&[may_pass, may_pass]), exit::RETRY);
        assert_eq!(verdict(&[]), exit::RETRY);
    }
}
