//! One picture: tries with pauses between them, redirects inside a try.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::body::{self, Picture};
use super::budget::Budget;
use super::client::{self, Clients, Names};
use super::hosts::{Host, Hosts, Place};
use super::outcome::{FetchFailure, FetchReason};
use super::patience::{backoff, retry_after};
use super::target::{AllowHosts, Target};
use super::{FetchOptions, Result};

/// What all pictures of a run share.
pub(super) struct Getter<'a> {
    options: &'a FetchOptions,
    allow: AllowHosts,
    clients: Clients,
    hosts: Hosts,
    budget: Budget,
}

/// Where one request led.
enum Hop {
    Arrived(Picture),
    Redirected(Target),
}

impl<'a> Getter<'a> {
    pub(super) fn new(options: &'a FetchOptions, names: &Arc<dyn Names>) -> Result<Self> {
        Ok(Self {
            options,
            allow: AllowHosts::parse(&options.allow_hosts)?,
            clients: Clients::new(options, names)?,
            hosts: Hosts::new(options.concurrent, options.per_host, options.host_failures),
            budget: Budget::new(options.budget_time, options.budget_bytes),
        })
    }

    /// The host by which a URL queues up; all URLs that will not be asked queue together.
    pub(super) fn queue(&self, url: &str) -> String {
        Target::parse(url, &self.allow).map_or_else(|_| String::new(), |target| target.host().to_owned())
    }

    /// Fetches a picture within the budget, and counts the tries.
    pub(super) async fn get(&self, url: &str, attempts: &mut u32) -> Result<(Picture, Place), FetchFailure> {
        let target = Target::parse(url, &self.allow)?;
        self.budget.check()?;
        let patient = self.get_patiently(url, &target, attempts);
        timeout(self.budget.time_left(), patient).await.unwrap_or_else(|_| Err(Budget::out_of_time()))
    }

    async fn get_patiently(
        &self,
        url: &str,
        target: &Target,
        attempts: &mut u32,
    ) -> Result<(Picture, Place), FetchFailure> {
        loop {
            self.budget.check()?;
            self.hosts.get(target.host()).check()?;
            match self.attempt(target, attempts).await {
                Err(failure) if failure.reason.may_pass() && *attempts < self.options.attempts => {
                    sleep(self.backoff(url, *attempts)).await;
                }
                ended => return ended,
            }
        }
    }

    /// One try, which counts once it is its turn. Waiting for a turn is not the picture's time.
    async fn attempt(&self, target: &Target, attempts: &mut u32) -> Result<(Picture, Place), FetchFailure> {
        let mut trail = vec![target.clone()];
        let mut time_left = self.options.picture_time;
        loop {
            let target = &trail[trail.len() - 1];
            let host = self.hosts.get(target.host());
            let turn = self.hosts.turn(&host).await;
            // Others may have used up the bytes, or found the host dead, while this one waited.
            self.budget.check()?;
            host.check()?;
            *attempts += u32::from(trail.len() == 1);
            let next = match self.hop(target, &host, &mut time_left).await? {
                Hop::Arrived(picture) => return Ok((picture, turn.into_place())),
                Hop::Redirected(next) => next,
            };
            if trail.iter().any(|seen| seen.same(&next)) {
                return Err(FetchReason::Redirects.because("the redirects go in a circle"));
            }
            if trail.len() > self.options.redirects as usize {
                let detail = format!("more than {} redirects", self.options.redirects);
                return Err(FetchReason::Redirects.because(detail));
            }
            // Waiting for the next host with the turn of this one could be for ever.
            drop(turn);
            trail.push(next);
        }
    }

    async fn hop(&self, target: &Target, host: &Host, time_left: &mut Duration) -> Result<Hop, FetchFailure> {
        let began = Instant::now();
        let asked = timeout(*time_left, self.ask(target, host)).await;
        *time_left = time_left.saturating_sub(began.elapsed());
        asked.unwrap_or_else(|_| {
            let detail = format!("not there after {:?}", self.options.picture_time);
            Err(FetchReason::Timeout.because(detail))
        })
    }

    async fn ask(&self, target: &Target, host: &Host) -> Result<Hop, FetchFailure> {
        let request = self.clients.of(target).get(target.url.clone());
        let request = request.header(ACCEPT, "image/*").header(ACCEPT_ENCODING, "identity");
        let answer = request.send().await.map_err(|error| {
            let failure = client::failure(error);
            if matches!(failure.reason, FetchReason::Unreachable | FetchReason::Timeout) {
                host.unreachable();
            }
            failure
        })?;
        host.answered();
        match answer.status().as_u16() {
            200 | 203 => {
                let picture = body::read(answer, self.options.picture_bytes, &self.budget).await;
                picture.map(Hop::Arrived)
            }
            301 | 302 | 303 | 307 | 308 => self.redirected(target, &answer).map(Hop::Redirected),
            _ => Err(self.refused(target, host, &answer)),
        }
    }

    fn redirected(&self, target: &Target, answer: &Response) -> Result<Target, FetchFailure> {
        let nowhere =
            || FetchReason::Redirects.because(format!("{}, but does not say where to", said(answer.status())));
        target.redirected(answer.headers().get(LOCATION).ok_or_else(nowhere)?.as_bytes(), &self.allow)
    }

    /// A status that is no picture. A host that asks for a pause gets one, for all of its pictures.
    fn refused(&self, target: &Target, host: &Host, answer: &Response) -> FetchFailure {
        let status = answer.status();
        let reason = match status.as_u16() {
            404 | 410 => FetchReason::NotFound,
            other => FetchReason::Http(other),
        };
        let asked_for = retry_after(answer.headers(), SystemTime::now()).filter(|_| reason.may_pass());
        let pause = asked_for.map(|pause| pause.min(self.options.retry_after_longest));
        let pause = pause.or_else(|| (status.as_u16() == 429).then(|| self.backoff(target.url.as_str(), 1)));
        if let Some(pause) = pause {
            host.pause(pause);
        }
        reason.because(said(status))
    }

    fn backoff(&self, url: &str, failures: u32) -> Duration {
        backoff(url, failures, self.options.pause_first, self.options.pause_longest)
    }
}

fn said(status: StatusCode) -> String {
    format!("the server answered {status}")
}
