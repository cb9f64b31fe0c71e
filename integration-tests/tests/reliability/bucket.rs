//! A bucket that kills: the calls of S3 that our client makes, over a folder.
//!
//! Every durable step of a coordinator or worker is a request to the store, so a store that kills the process that asks,
//! before it obeys or after it, hits every gap between two steps exactly, and the product needs no code for it. Who asks
//! stands in the signature: every process has an access key of its own. Objects lie in the folder as under a local root, so
//! that the same readers open them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::cluster::{alive, signal};

/// The bucket's name.
pub(crate) const NAME: &str = "shop";

/// On which side of the step the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The request has arrived and nothing was done.
    Before,
    /// It was done and nobody has heard of it.
    After,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Whoever asks.
    Caller,
    /// The coordinator, while somebody else asks.
    Coordinator,
}

/// A gap in which a process dies.
#[derive(Clone, Debug)]
pub(crate) struct Failpoint {
    /// What the gap is called in figures.
    pub(crate) name: &'static str,
    /// How the name of the process begins that asks.
    pub(crate) by: &'static str,
    /// What it asks.
    pub(crate) method: &'static str,
    /// What the path holds, in this order.
    pub(crate) path: &'static [&'static str],
    pub(crate) moment: Moment,
    pub(crate) victim: Victim,
    /// How often it still kills.
    pub(crate) left: u32,
    /// Once this object is there it kills nobody any more; an empty name is never there.
    pub(crate) unless: String,
}

impl Failpoint {
    fn is_met(&self, moment: Moment, request: &Request, folder: &Path) -> bool {
        let mut rest = request.path.as_str();
        let found = |needle: &&str| rest.find(needle).map(|at| rest = &rest[at + needle.len()..]).is_some();
        self.left > 0
            && self.moment == moment
            && self.method == request.method
            && request.who.starts_with(self.by)
            && self.path.iter().all(found)
            && !folder.join(&self.unless).is_file()
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    /// The access key.
    who: String,
    /// Whether an object that is there must stay.
    unless_exists: bool,
    body: Vec<u8>,
}

struct Response {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Of the object, where the body is not sent.
    bytes: usize,
}

struct State {
    folder: PathBuf,
    staging: tempfile::TempDir,
    drafts: AtomicU64,
    writes: Mutex<()>,
    open: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    failpoints: Mutex<Vec<Failpoint>>,
    hits: Mutex<BTreeMap<&'static str, u32>>,
    /// Access keys and process ids, in the order in which they were started.
    processes: Mutex<Vec<(String, u32)>>,
}

/// A server that lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Bucket {
    state: Arc<State>,
    address: SocketAddr,
}

impl Bucket {
    /// Serves a folder.
    pub(crate) fn over(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        fs::create_dir_all(folder).unwrap();
        let state = Arc::new(State {
            folder: folder.to_owned(),
            staging: tempfile::tempdir_in(folder.parent().unwrap()).unwrap(),
            drafts: AtomicU64::new(0),
            writes: Mutex::new(()),
            open: AtomicBool::new(true),
            connections: Mutex::default(),
            failpoints: Mutex::default(),
            hits: Mutex::default(),
            processes: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = shared.clone();
                // A client that dies in the middle is what this is for.
                std::thread::spawn(move || drop(state.converse(&connection)));
            }
        });
        Self { state, address }
    }

    /// What a process has to know to come here, under a name of its own.
    pub(crate) fn environment(&self, who: &str) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let pairs = [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", who),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Who it is that comes under this name.
    pub(crate) fn introduce(&self, who: &str, pid: u32) {
        self.state.processes.lock().unwrap().push((who.to_owned(), pid));
    }

    /// Kills there from now on.
    pub(crate) fn arm(&self, failpoints: Vec<Failpoint>) {
        *self.state.failpoints.lock().unwrap() = failpoints;
    }

    /// How often it has killed where.
    pub(crate) fn hits(&self) -> BTreeMap<&'static str, u32> {
        self.state.hits.lock().unwrap().clone()
    }

    /// Ends all connections and takes no others.
    pub(crate) fn close(&self) {
        self.state.open.store(false, Ordering::SeqCst);
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Is there again.
    pub(crate) fn reopen(&self) {
        self.state.open.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn converse(&self, connection: &TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        self.connections.lock().unwrap().push(connection.try_clone()?);
        let mut reader = BufReader::new(connection);
        while let Some(request) = read_request(&mut reader)? {
            if !self.open.load(Ordering::SeqCst) || self.kills(Moment::Before, &request) {
                break;
            }
            let response = self.obey(&request)?;
            if self.kills(Moment::After, &request) {
                break;
            }
            write_response(connection, &request.method, &response)?;
        }
        let _ = connection.shutdown(Shutdown::Both);
        Ok(())
    }

    /// Kills whom a failpoint names. Says whether that was the one who asks.
    fn kills(&self, moment: Moment, request: &Request) -> bool {
        let mut failpoints = self.failpoints.lock().unwrap();
        let Some(met) = failpoints.iter_mut().find(|point| point.is_met(moment, request, &self.folder)) else {
            return false;
        };
        let processes = self.processes.lock().unwrap().clone();
        // Of coordinators the newest: ids of those before may be others' by now.
        let victim = processes.iter().rev().find(|(who, _)| match met.victim {
            Victim::Caller => *who == request.who,
            Victim::Coordinator => who.starts_with("coordinator-"),
        });
        let Some(pid) = victim.map(|(_, pid)| *pid).filter(|pid| alive(*pid)) else { return false };
        signal(pid, "KILL");
        while alive(pid) {
            std::thread::yield_now();
        }
        met.left -= 1;
        *self.hits.lock().unwrap().entry(met.name).or_default() += 1;
        met.victim == Victim::Caller
    }

    fn obey(&self, request: &Request) -> io::Result<Response> {
        let key = request.path.trim_start_matches('/').strip_prefix(NAME).unwrap_or_default().trim_start_matches('/');
        match request.method.as_str() {
            "GET" if key.is_empty() => self.list(&request.query),
            "GET" | "HEAD" => self.read(key),
            "PUT" => self.write(key, request),
            "POST" if request.query.contains_key("delete") => self.delete(&request.body),
            "DELETE" => self.remove(key).map(|()| Response::empty(204)),
            _ => Ok(Response::empty(405)),
        }
    }

    fn read(&self, key: &str) -> io::Result<Response> {
        let path = self.folder.join(key);
        if !path.is_file() {
            return Ok(Response::error(404, "NoSuchKey"));
        }
        let body = fs::read(path)?;
        let headers = format!("ETag: {}\r\nLast-Modified: {NOW}\r\n", etag(&body));
        Ok(Response { status: 200, headers, bytes: body.len(), body })
    }

    /// Whole or not at all, as S3 does it.
    fn write(&self, key: &str, request: &Request) -> io::Result<Response> {
        let path = self.folder.join(key);
        let draft = self.staging.path().join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        fs::write(&draft, &request.body)?;
        fs::create_dir_all(path.parent().unwrap())?;
        let _alone = self.writes.lock().unwrap();
        if request.unless_exists && path.exists() {
            return Ok(Response::error(412, "PreconditionFailed"));
        }
        fs::rename(&draft, &path)?;
        Ok(Response { headers: format!("ETag: {}\r\n", etag(&request.body)), ..Response::empty(200) })
    }

    fn remove(&self, key: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(key)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn delete(&self, body: &[u8]) -> io::Result<Response> {
        let text = String::from_utf8_lossy(body);
        let mut deleted = String::new();
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.remove(key)?;
            let _ = write!(deleted, "<Deleted><Key>{key}</Key></Deleted>");
        }
        Ok(Response::xml("DeleteResult", &deleted))
    }

    fn list(&self, query: &BTreeMap<String, String>) -> io::Result<Response> {
        let prefix = query.get("prefix").map_or("", String::as_str);
        let mut found = Vec::new();
        // Our prefixes are folders.
        walk(&self.folder.join(prefix), &self.folder, &mut found)?;
        found.sort();
        let mut contents = format!("<KeyCount>{}</KeyCount><IsTruncated>false</IsTruncated>", found.len());
        for (key, bytes) in found {
            let _ = write!(
                contents,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{bytes}&quot;\
                 </ETag><Size>{bytes}</Size></Contents>"
            );
        }
        Ok(Response::xml("ListBucketResult", &contents))
    }
}

/// Nobody compares it.
const NOW: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

impl Response {
    fn empty(status: u16) -> Self {
        Self { status, headers: String::new(), body: Vec::new(), bytes: 0 }
    }

    fn xml(root: &str, inner: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root}>{inner}</{root}>").into_bytes();
        let headers = "Content-Type: application/xml\r\n".to_owned();
        Self { status: 200, headers, bytes: body.len(), body }
    }

    fn error(status: u16, code: &str) -> Self {
        Self { status, ..Self::xml("Error", &format!("<Code>{code}</Code>")) }
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", data::artifact::Digest::of_bytes(bytes).short())
}

fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => walk(&path, root, found)?,
            Ok(metadata) => found.push((path.strip_prefix(root).unwrap().display().to_string(), metadata.len())),
            Err(_) => {} // removed meanwhile
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let (mut who, mut unless_exists, mut bytes) = (String::new(), false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => {
                let credential = value.split("Credential=").nth(1).and_then(|rest| rest.split('/').next());
                who = credential.unwrap_or_default().to_owned();
            }
            "if-none-match" => unless_exists = value.trim() == "*",
            "content-length" => bytes = value.trim().parse().map_err(io::Error::other)?,
            _ => {}
        }
    }
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), decoded(value))
    };
    let query = query.split('&').map(pair).collect();
    Ok(Some(Request { method, path: decoded(path), query, who, unless_exists, body }))
}

fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        decoded.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        decoded.push_str(rest);
    }
    decoded
}

fn write_response(mut to: &TcpStream, method: &str, response: &Response) -> io::Result<()> {
    let Response { status, headers, body, bytes } = response;
    let mut message = format!("HTTP/1.1 {status} -\r\nContent-Length: {bytes}\r\n{headers}\r\n").into_bytes();
    if method != "HEAD" {
        message.extend_from_slice(body);
    }
    to.write_all(&message)
}
