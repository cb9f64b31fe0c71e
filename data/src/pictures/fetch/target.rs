//! What a URL asks for, and whether it may be asked for at all.

use std::net::IpAddr;

use url::{Host, Url};

use super::address;
use super::outcome::{FetchFailure, FetchReason};
use crate::{Error, Result};

/// The longest URL, in bytes; servers give up at about this length too.
const MAX_URL: usize = 8192;

/// A checked URL. Whether the addresses of its host are public is left to the lookup.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    /// Whether the user allows any address for this host and port.
    pub(super) allowed: bool,
}

impl Target {
    /// Checks a URL as it stands in the metadata.
    pub(super) fn parse(text: &str, allow: &AllowHosts) -> Result<Self, FetchFailure> {
        if text.len() > MAX_URL {
            return Err(FetchReason::BadUrl.because(format!("the URL is longer than {MAX_URL} bytes")));
        }
        let url = Url::parse(text).map_err(|e| FetchReason::BadUrl.because(format!("this is not a URL: {e}")))?;
        Self::check(url, allow)
    }

    /// Checks where a redirect leads to.
    pub(super) fn redirected(&self, location: &[u8], allow: &AllowHosts) -> Result<Self, FetchFailure> {
        let unfit = || FetchReason::Redirects.because("the server redirects to something that is not a URL");
        let text = std::str::from_utf8(location).ok().filter(|t| t.len() <= MAX_URL).ok_or_else(unfit)?;
        let url = self.url.join(text).map_err(|_| unfit())?;
        Self::check(url, allow).map_err(|f| f.reason.because(format!("after a redirect: {}", f.detail)))
    }

    /// The name under which the host is counted: without a port, and without the dot that may end a name.
    pub(super) fn host(&self) -> &str {
        name(&self.url)
    }

    /// Whether both ask for the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        let asked = |t: &Self| {
            let mut url = t.url.clone();
            url.set_fragment(None);
            url
        };
        asked(self) == asked(other)
    }

    fn check(url: Url, allow: &AllowHosts) -> Result<Self, FetchFailure> {
        let bad = |detail: String| Err(FetchReason::BadUrl.because(detail));
        if !matches!(url.scheme(), "http" | "https") {
            return bad(format!("the URL begins with {}:, only http: and https: are fetched", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return bad("the URL holds a user name or password, which are never sent".to_owned());
        }
        let allowed = allow.permits(&url);
        let literal = match url.host() {
            None => return bad("the URL has no host".to_owned()),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        };
        match literal.filter(|_| !allowed).and_then(address::refusal) {
            Some(what) => Err(FetchReason::RefusedAddress.because(format!("{} is {what}{ALLOW}", name(&url)))),
            None => Ok(Self { url, allowed }),
        }
    }
}

/// The way out for those who mean a host of their own.
pub(super) const ALLOW: &str = "; a host of your own can be named in captions.fetch_allow_hosts";

fn name(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_end_matches('.')
}

/// Hosts that may be at any address, with or without a port.
#[derive(Clone, Debug)]
pub(super) struct AllowHosts(Vec<(String, Option<u16>)>);

impl AllowHosts {
    pub(super) fn parse(entries: &[String]) -> Result<Self> {
        entries.iter().map(|entry| allowed(entry).ok_or_else(|| Error::AllowedHost { entry: entry.clone() })).collect()
    }

    fn permits(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        self.0.iter().any(|(host, only)| host == name(url) && (only.is_none() || *only == port))
    }
}

impl FromIterator<(String, Option<u16>)> for AllowHosts {
    fn from_iter<I: IntoIterator<Item = (String, Option<u16>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Host and port of an entry, spelt as they are in a parsed URL.
fn allowed(entry: &str) -> Option<(String, Option<u16>)> {
    let under = |scheme: &str| Url::parse(&format!("{scheme}://{entry}/")).ok();
    let (http, https) = (under("http")?, under("https")?);
    let plain = http.path() == "/" && http.username().is_empty() && http.password().is_none();
    let plain = plain && http.query().is_none() && http.fragment().is_none() && !entry.is_empty();
    // A parsed URL forgets a port that is the scheme's own, so each scheme remembers what the other one forgets.
    let plain = plain && !entry.contains(['/', '*', ' ']) && !name(&http).is_empty();
    plain.then(|| (name(&http).to_owned(), http.port().or(https.port())))
}
