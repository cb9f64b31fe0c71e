//! A proxy before a store server: it brings order where the server has races, and trouble where a test wants some.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::IF_NONE_MATCH;
use hyper::{Method, Request};

use crate::http::{self, Answer, answer};

/// Which share of the requests meets which trouble; what is left goes through untouched.
///
/// The troubles follow from the seed, one after the other; which request meets which one depends on the order in which
/// they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The seed.
    pub seed: u64,
    /// Writes that are done and whose answer is lost: the connection ends, or the answer is 500 or 503.
    pub lost: f64,
    /// Writes that are not done, and answered with 409, 429, 500 or 503.
    pub refused: f64,
    /// Any requests that are not done, and answered with 503.
    pub busy: f64,
    /// Any requests that wait before they go on.
    pub late: f64,
    /// Reads of which a part of the body arrives.
    pub cut: f64,
    /// Conditions of writes are taken away, as if the server did not know them.
    pub deaf: bool,
}

/// How long a late request waits.
const LATE: Duration = Duration::from_millis(80);

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    Closed,
    Lost(u16),
    Refused(u16),
    Late,
    Cut,
}

/// How often what happened.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl Counts {
    /// Requests in all.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Requests that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bodies that were cut.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }
}

/// A proxy that runs as long as the process.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has done.
    pub counts: Arc<Counts>,
}

impl Proxy {
    /// Lets one write after the other through, and reads as they come. moto looks for the object and writes it in two steps.
    #[must_use]
    pub fn in_a_row(server: SocketAddr) -> Self {
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let counts = Arc::new(Counts::default());
        let seen = counts.clone();
        let address = http::serve(move |request| {
            let (turn, counts) = (turn.clone(), seen.clone());
            Box::pin(async move {
                counts.requests.fetch_add(1, Ordering::Relaxed);
                let _turn = if is_write(&request) { Some(turn.lock().await) } else { None };
                passed_on(server, request).await
            })
        });
        Self { address, counts }
    }

    /// Makes trouble.
    #[must_use]
    pub fn with_trouble(server: SocketAddr, trouble: Trouble) -> Self {
        let counts = Arc::new(Counts::default());
        let (seen, next) = (counts.clone(), Arc::new(AtomicU64::new(0)));
        let address = http::serve(move |request| {
            let fate = trouble.fate(next.fetch_add(1, Ordering::Relaxed), &request);
            let counts = seen.clone();
            Box::pin(async move { meet(fate, server, trouble.on(request), &counts).await })
        });
        Self { address, counts }
    }
}

async fn meet(fate: Fate, server: SocketAddr, request: Request<Bytes>, counts: &Counts) -> Answer {
    counts.requests.fetch_add(1, Ordering::Relaxed);
    match fate {
        Fate::Untouched => passed_on(server, request).await,
        Fate::Refused(status) => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            Answer::Whole(answer(status, trouble_of(status)))
        }
        Fate::Closed | Fate::Lost(_) => {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            passed_on(server, request).await;
            let Fate::Lost(status) = fate else { return Answer::Nothing };
            Answer::Whole(answer(status, trouble_of(status)))
        }
        Fate::Late => {
            tokio::time::sleep(LATE).await;
            passed_on(server, request).await
        }
        Fate::Cut => match passed_on(server, request).await {
            Answer::Whole(response) if response.body().len() > 1 => {
                counts.cut.fetch_add(1, Ordering::Relaxed);
                let half = response.body().len() / 2;
                Answer::Cut(response, half)
            }
            other => other,
        },
    }
}

async fn passed_on(server: SocketAddr, request: Request<Bytes>) -> Answer {
    http::send(server, request).await.map_or(Answer::Nothing, Answer::Whole)
}

fn is_write(request: &Request<Bytes>) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD)
}

fn trouble_of(status: u16) -> &'static str {
    match status {
        409 => "<Error><Code>ConditionalRequestConflict</Code></Error>",
        429 | 503 => "<Error><Code>SlowDown</Code></Error>",
        _ => "<Error><Code>InternalError</Code></Error>",
    }
}

impl Trouble {
    fn fate(&self, place: u64, request: &Request<Bytes>) -> Fate {
        let draw = mix(self.seed, place);
        let choice = draw & 3;
        let mut left = (draw >> 11) as f64 / (1u64 << 53) as f64;
        let mut falls = |share: f64| {
            left -= share;
            left < 0.0
        };
        if falls(self.busy) {
            return Fate::Refused(503);
        }
        if falls(self.late) {
            return Fate::Late;
        }
        let write = *request.method() == Method::PUT;
        if write && falls(self.lost) {
            return [Fate::Closed, Fate::Closed, Fate::Lost(500), Fate::Lost(503)][choice as usize];
        }
        if write && falls(self.refused) {
            return [409, 429, 500, 503].map(Fate::Refused)[choice as usize];
        }
        if *request.method() == Method::GET && falls(self.cut) {
            return Fate::Cut;
        }
        Fate::Untouched
    }

    /// The request as the server is to see it.
    fn on(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        if self.deaf {
            request.headers_mut().remove(IF_NONE_MATCH);
            request.headers_mut().remove("x-goog-if-generation-match");
        }
        request
    }
}

/// SplitMix64 of a place in a sequence.
fn mix(seed: u64, place: u64) -> u64 {
    let mut z = seed.wrapping_add(place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
