//! The connection below the generated clients, made so that the reason for its end is known.
//!
//! A certificate of ours is judged after our side of the handshake is done. The alert that refuses it comes while a request is
//! on its way, and HTTP/2 tells the request only that the connection has ended. So the alert is taken down where it is read.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Uri};

type BoxError = Box<dyn StdError + Send + Sync>;
type Soon<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Something answers, and it is no coordinator: a proxy that has none behind it, say.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    /// It speaks HTTP/2 and not gRPC.
    #[error("what answers there is no coordinator (HTTP status {0})")]
    Status(http::StatusCode),
    /// It speaks HTTP/1.
    #[error("what answers there is no coordinator (it speaks HTTP/1)")]
    Http1,
    /// It speaks TLS and something else than HTTP/2.
    #[error("what answers there is no coordinator (it does not speak HTTP/2)")]
    NotHttp2,
}

/// What was heard of the connection that was made last, apart from answers.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Option<Word>>>);

#[derive(Clone, Debug)]
enum Word {
    Tls(TlsError),
    Http1,
}

impl Heard {
    fn note(&self, word: Option<Word>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = word;
    }

    /// The cause of an error, where one was heard.
    fn cause_of(&self, error: impl Into<BoxError>) -> BoxError {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(Word::Tls(cause)) => cause.into(),
            Some(Word::Http1) => Stranger::Http1.into(),
            None => error.into(),
        }
    }
}

/// A channel to a coordinator. Its errors are those of the wire where there are such.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
    heard: Heard,
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Soon<http::Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(cx).map_err(|e| self.heard.cause_of(e))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, heard) = (self.channel.call(request), self.heard.clone());
        Box::pin(async move {
            let answer = answer.await.map_err(|e| heard.cause_of(e))?;
            let kind = answer.headers().get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
            if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
                Ok(answer)
            } else {
                Err(Stranger::Status(answer.status()).into())
            }
        })
    }
}

/// TLS as our side wants it, and the name that the other side must prove to have.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// Connects. The scheme of the endpoint does not matter: there is TLS where `tls` is given.
pub(super) async fn connect(
    endpoint: tonic::transport::Endpoint,
    tls: Option<Tls>,
    limit: Duration,
) -> Result<Wire, tonic::transport::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limit));
    let heard = Heard::default();
    let way = Way { tcp, tls, limit, heard: heard.clone() };
    let channel = endpoint.connect_timeout(2 * limit).connect_with_connector(way).await?;
    Ok(Wire { channel, heard })
}

/// Makes connections, one after the other.
struct Way {
    tcp: HttpConnector,
    tls: Option<Tls>,
    limit: Duration,
    heard: Heard,
}

impl Service<Uri> for Way {
    type Response = TokioIo<Listened>;
    type Error = BoxError;
    type Future = Soon<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.heard.note(None);
        let (tcp, tls, limit, heard) = (self.tcp.call(uri), self.tls.clone(), self.limit, self.heard.clone());
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            let io: Box<dyn Io> = match tls {
                None => Box::new(tcp),
                Some((config, name)) => {
                    let handshake = TlsConnector::from(config).connect(name, tcp);
                    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
                    let secured = tokio::time::timeout(limit, handshake).await.map_err(late)??;
                    if secured.get_ref().1.alpn_protocol() != Some(b"h2") {
                        return Err(Stranger::NotHttp2.into());
                    }
                    Box::new(secured)
                }
            };
            Ok(TokioIo::new(Listened { io, heard, silent: true }))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of which is taken down what HTTP/2 does not tell.
struct Listened {
    io: Box<dyn Io>,
    heard: Heard,
    /// Nothing was read yet.
    silent: bool,
}

impl AsyncRead for Listened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) if self.silent => {
                self.silent = false;
                if buf.filled()[before..].starts_with(b"HTTP/") {
                    self.heard.note(Some(Word::Http1));
                }
            }
            Poll::Ready(Err(e)) => {
                let tls = e.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
                if let Some(tls) = tls {
                    self.heard.note(Some(Word::Tls(tls.clone())));
                }
            }
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Listened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
