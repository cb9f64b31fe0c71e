//! Looks at every request: who calls, and whether the method is theirs.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures::future::Either;
use tonic::Status;
use tonic::codegen::{Service, http};
use tower::Layer;
use tracing::warn;

use super::connection::Peer;
use super::fresh::Fresh;
use super::tokens::Tokens;
use super::{Caller, roles};

const UNKNOWN: &str = "the coordinator must know who calls: give a client certificate (--tls-cert, --tls-key) or a token \
                       (--token-file or MLLM4REC_TOKEN)";

/// What is asked of a request.
#[derive(Clone)]
pub(crate) enum Guard {
    /// Nothing.
    Open,
    /// A role that has the method.
    Roles {
        /// Tokens that are known.
        tokens: Option<Arc<Fresh<Tokens>>>,
    },
}

impl Guard {
    /// The caller, if the method is theirs.
    pub(crate) fn admit(
        &self,
        method: &str,
        authorization: Option<&[u8]>,
        peer: Option<&Peer>,
    ) -> Result<Caller, Status> {
        let Self::Roles { tokens } = self else { return Ok(Caller::Local) };
        let caller = match (authorization, peer.and_then(|peer| peer.holder.as_ref())) {
            // Whoever shows a token is judged by it, also on a connection with a certificate.
            (Some(shown), _) => by_token(shown, tokens.as_deref()),
            (None, Some(holder)) => holder.clone().map_err(Status::unauthenticated),
            (None, None) => Err(Status::unauthenticated(UNKNOWN)),
        }?;
        let Caller::Known { role, .. } = &caller else { return Err(Status::unauthenticated(UNKNOWN)) };
        let roles = roles::that_may_call(method);
        if roles.contains(role) {
            return Ok(caller);
        }
        let owners: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let whose = if owners.is_empty() { "for nobody".to_owned() } else { format!("for {}", owners.join(", ")) };
        let name = method.rsplit('/').next().unwrap_or(method);
        Err(Status::permission_denied(format!("{caller} may not call {name}: it is {whose}")))
    }
}

fn by_token(shown: &[u8], tokens: Option<&Fresh<Tokens>>) -> Result<Caller, Status> {
    let Some(tokens) = tokens else {
        return Err(Status::unauthenticated("this coordinator takes no tokens: use a client certificate"));
    };
    let unknown = || Status::unauthenticated("the token is not known: it was revoked, or is another coordinator's");
    let known = tokens
        .current()
        .map_err(|_| Status::unavailable("the coordinator's file of tokens cannot be read; its log says why"))?;
    let token = shown.strip_prefix(b"Bearer ").ok_or_else(unknown)?;
    let entry = known.find(token).ok_or_else(unknown)?;
    if entry.expired(SystemTime::now()) {
        return Err(Status::unauthenticated(format!("the token of {} has expired: ask for another", entry.name)));
    }
    Ok(Caller::Known { name: entry.name.clone(), role: entry.role })
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let authorization = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let peer = request.extensions().get::<Peer>();
        match self.guard.admit(request.uri().path(), authorization, peer) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                let (address, method) = (peer.map(|peer| peer.address), request.uri().path());
                warn!(target: "audit", ?address, method, reason = status.message(), "refused");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}
