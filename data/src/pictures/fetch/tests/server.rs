//! A small HTTP server of raw bytes, so that it can misbehave.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the server does next with a request. After the last step it closes the connection.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Sends the same bytes over and over, with a pause after each time.
    Forever(Vec<u8>, Duration),
    /// Keeps the connection open and says nothing more.
    Hang,
    /// Goes on to the next request of the connection.
    Keep,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) host: String,
    pub(super) path: String,
    pub(super) head: String,
    pub(super) at: Instant,
    /// How often this path was asked for before.
    pub(super) nth: usize,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// Requests at this moment, and the most there were; by host and, under "", in all.
    live: BTreeMap<String, (usize, usize)>,
}

impl Seen {
    fn count(&mut self, host: &str, change: isize) {
        for key in [host, ""] {
            let (now, most) = self.live.entry(key.to_owned()).or_default();
            *now = now.checked_add_signed(change).unwrap();
            *most = (*most).max(*now);
        }
    }
}

type Script = dyn Fn(&Request) -> Vec<Step> + Send + Sync;

pub(super) struct Server {
    pub(super) port: u16,
    seen: Arc<Mutex<Seen>>,
    arrived: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, arrived) = (Arc::<Mutex<Seen>>::default(), Arc::<Notify>::default());
        let (script, seen_by, notified): (Arc<Script>, _, _) = (Arc::new(script), seen.clone(), arrived.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, script.clone(), seen_by.clone(), notified.clone()));
            }
        });
        Self { port, seen, arrived, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub(super) fn asked(&self, path: &str) -> usize {
        self.requests().iter().filter(|r| r.path == path).count()
    }

    /// The most requests of a host at once, or of all hosts for "".
    pub(super) fn most(&self, host: &str) -> usize {
        self.seen.lock().unwrap().live.get(host).map_or(0, |(_, most)| *most)
    }

    /// Waits until so many requests have come.
    pub(super) async fn wait_for(&self, requests: usize) {
        loop {
            let next = self.arrived.notified();
            if self.requests().len() >= requests {
                return;
            }
            next.await;
        }
    }
}

async fn connection(stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Seen>>, arrived: Arc<Notify>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut stream, &seen).await {
        let host = request.host.clone();
        seen.lock().unwrap().count(&host, 1);
        arrived.notify_one();
        let steps = script(&request);
        let keep = matches!(steps.last(), Some(Step::Keep));
        if play(&mut stream, steps, || seen.lock().unwrap().count(&host, -1)).await.is_err() || !keep {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, seen: &Mutex<Seen>) -> io::Result<Option<Request>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
    let mut seen = seen.lock().unwrap();
    let nth = seen.requests.iter().filter(|r| r.path == path).count();
    let request = Request { host, path, head, at: Instant::now(), nth };
    seen.requests.push(request.clone());
    Ok(Some(request))
}

/// `over` is called before the last bytes leave, for the client may ask again before we come to it.
async fn play(stream: &mut BufReader<TcpStream>, steps: Vec<Step>, over: impl FnOnce()) -> io::Result<()> {
    let last = steps.iter().rposition(|step| matches!(step, Step::Send(_)));
    let mut over = Some(over);
    for (i, step) in steps.into_iter().enumerate() {
        if Some(i) == last {
            over.take().into_iter().for_each(|over| over());
        }
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Hang => std::future::pending().await,
            Step::Keep => {}
            Step::Forever(bytes, pause) => loop {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            },
        }
        stream.flush().await?;
    }
    over.into_iter().for_each(|over| over());
    Ok(())
}

/// A picture: it begins as a JPEG, the rest says which one it is.
pub(super) fn picture(name: &str) -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0], b"................".as_slice(), name.as_bytes()].concat()
}

/// An answer with these headers, each ended by `\r\n`, and this body.
pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    vec![Step::Send([format!("HTTP/1.1 {status}\r\n{headers}\r\n").as_bytes(), body].concat())]
}

/// An answer as most are.
pub(super) fn ok(body: &[u8]) -> Vec<Step> {
    answer("200 OK", &format!("content-type: image/jpeg\r\ncontent-length: {}\r\n", body.len()), body)
}

pub(super) fn status(status: &str) -> Vec<Step> {
    answer(status, "content-length: 0\r\n", b"")
}

pub(super) fn redirect(to: &str) -> Vec<Step> {
    answer("302 Found", &format!("location: {to}\r\ncontent-length: 0\r\n"), b"")
}
