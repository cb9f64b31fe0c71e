//! As much HTTP as the store servers and the proxies before them need: whole bodies, one request per connection outwards.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What a server says to a request.
#[derive(Debug)]
pub enum Answer {
    /// The whole response.
    Whole(Response<Bytes>),
    /// Its head, which promises the whole body, and so many bytes; then the connection ends.
    Cut(Response<Bytes>, usize),
    /// Nothing: the connection ends.
    Nothing,
}

/// A response without a body worth reading.
#[must_use]
pub fn answer(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("it is a status");
    response
}

/// Where servers and proxies run: a runtime of their own, which outlives those of single tests.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime can be built"))
}

/// Runs a future on [`runtime`] and waits for it, also within a test that has a runtime itself.
///
/// # Panics
/// If the future does.
pub fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime().spawn(async move { sender.send(future.await) });
    receiver.recv().expect("the future ends")
}

/// A server at a free port of this machine, for as long as the process lives.
///
/// # Panics
/// If no port can be had.
pub fn serve<H>(handler: H) -> SocketAddr
where
    H: Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    wait(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(converse(connection, handler.clone()));
            }
        });
        address
    })
}

async fn converse<H>(connection: TcpStream, handler: Arc<H>)
where
    H: Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let head_only = head.method == Method::HEAD;
            body_of(handler(Request::from_parts(head, body)).await, head_only)
        }
    });
    // A connection that is cut on purpose is an error here, as one that the client closes.
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The response as it is sent; an error ends the connection at once.
fn body_of(answer: Answer, head_only: bool) -> io::Result<Response<Body>> {
    let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let (response, cut) = match answer {
        Answer::Whole(response) => (response, None),
        Answer::Cut(response, bytes) => (response, Some(bytes)),
        Answer::Nothing => return Err(gone()),
    };
    let (mut head, body) = response.into_parts();
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONNECTION);
    if !head_only {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let never = |e: Infallible| match e {};
    let body = match cut {
        None => Full::new(body).map_err(never).boxed_unsync(),
        Some(bytes) => {
            let sent = Ok(Frame::data(body.slice(..bytes.min(body.len()))));
            StreamBody::new(stream::iter([sent, Err(gone())])).boxed_unsync()
        }
    };
    Ok(Response::from_parts(head, body))
}

/// Sends a request and reads the whole response.
///
/// # Errors
/// Those of the connection.
pub async fn send(to: SocketAddr, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    let connection = TcpStream::connect(to).await?;
    let (mut sender, driver) =
        client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(io::Error::other)?;
    tokio::spawn(driver);
    let mut request = request.map(Full::new);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}
