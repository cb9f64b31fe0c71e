//! Connections that end only where they may.
//!
//! A name is looked up here and nowhere else, and the connection goes to the very addresses that were checked: a name that
//! answers differently the second time (DNS rebinding) is never asked a second time. Connections that are kept open for the
//! next picture were checked when they were made.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

use super::address;
use super::outcome::{FetchFailure, FetchReason};
use super::target::Target;
use super::{Error, FetchOptions, Result};

/// How long a connection is kept for the next picture. Short, for there may be more hosts than files that may be open.
const IDLE: Duration = Duration::from_secs(2);

/// How a server sees us.
const USER_AGENT: &str = concat!("mllm4rec/", env!("CARGO_PKG_VERSION"));

/// Turns names into addresses.
pub(super) trait Names: Send + Sync + 'static {
    /// Every address of a host.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The names that the operating system knows.
pub(super) struct SystemNames;

impl Names for SystemNames {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()) }.boxed()
    }
}

/// A client for the public internet and one for the hosts that the user allows: names of the first are checked.
pub(super) struct Clients {
    public: Client,
    allowed: Client,
}

impl Clients {
    pub(super) fn new(options: &FetchOptions, names: &Arc<dyn Names>) -> Result<Self> {
        let client = |public_only| {
            let names = Lookup { names: names.clone(), public_only };
            let built = builder(options).dns_resolver(Arc::new(names)).build();
            built.map_err(|e| Error::FetchClient { reason: chain(&e) })
        };
        Ok(Self { public: client(true)?, allowed: client(false)? })
    }

    pub(super) fn of(&self, target: &Target) -> &Client {
        if target.allowed { &self.allowed } else { &self.public }
    }
}

/// What a client must not do on its own: no proxy, which would look names up itself, no redirect before it is checked, no
/// decompression (a small answer could become a huge one) and no second try. One protocol is enough for pictures, and under
/// it a connection carries one at a time.
fn builder(options: &FetchOptions) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        .connect_timeout(options.connect_time)
        .pool_max_idle_per_host(options.per_host)
        .pool_idle_timeout(IDLE)
}

struct Lookup {
    names: Arc<dyn Names>,
    public_only: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (addresses, public_only) = (self.names.lookup(host.clone()), self.public_only);
        async move {
            let addresses = addresses.await?;
            if public_only {
                check(&host, &addresses)?;
            }
            // The port of the URL takes the place of 0.
            let sockets: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(sockets.into_iter()) as Addrs)
        }
        .boxed()
    }
}

/// A host with one address that is not public is refused as a whole: nobody who means well mixes them.
fn check(host: &str, addresses: &[IpAddr]) -> Result<(), Refused> {
    let refusal = |address: &IpAddr| Some((*address, address::refusal(*address)?));
    match addresses.iter().find_map(refusal) {
        Some((address, what)) => Err(Refused { host: host.to_owned(), address, what }),
        None => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{host} is at {address}, which is {what}")]
struct Refused {
    host: String,
    address: IpAddr,
    what: &'static str,
}

/// What an error of the client means for a picture.
pub(super) fn failure(error: reqwest::Error) -> FetchFailure {
    // The URL stands in the record already.
    let error = error.without_url();
    if let Some(refused) = causes(&error).find_map(|cause| cause.downcast_ref::<Refused>()) {
        return FetchReason::RefusedAddress.because(format!("{refused}{}", super::target::ALLOW));
    }
    if error.is_timeout() {
        FetchReason::Timeout.because("no connection in time")
    } else if error.is_connect() {
        FetchReason::Unreachable.because(format!("no connection: {}", chain(&error)))
    } else {
        FetchReason::BrokenOff.because(format!("the answer broke off: {}", chain(&error)))
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The last cause is the one that tells people something.
fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
