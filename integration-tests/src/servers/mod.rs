//! Servers of the cloud stores, started once per test program: moto for S3, Azurite for Azure, a fake of our own for GCS.
//!
//! `cargo xtask check` installs the first two and names them by [`MOTO`] and [`AZURITE`]; without them tests say so and pass.

mod gcs;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data::store::Store;
use hyper::header::HOST;
use hyper::{Method, Request};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use crate::http;
use crate::proxy::Proxy;

/// Names a Python with moto.
pub const MOTO: &str = "MLLM4REC_MOTO";
/// Names the folder of Azurite's package.
pub const AZURITE: &str = "MLLM4REC_AZURITE";
/// The bucket, or container, that every server has.
const BUCKET: &str = "shop";
/// The longest that a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// The account of Azurite and its key, the same everywhere.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Ends a server with the program that started it, however that one ends: its standard input is closed then.
const MOTO_SCRIPT: &str = "import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(sys.argv[1:])";
const AZURITE_SCRIPT: &str = "process.stdin.resume().on('end', () => process.exit(0)); require(process.argv[1]);";

/// Which cloud a server stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// S3: moto behind a proxy that lets one write after the other through.
    S3,
    /// Azure: Azurite.
    Azure,
    /// Google Cloud Storage: our fake.
    Gcs,
}

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Azure, Self::Gcs];
}

/// A server with one empty bucket.
#[derive(Debug)]
pub struct Server {
    /// What it stands for.
    pub cloud: Cloud,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its standard input ends with this program, and it with that.
    _process: Option<Child>,
}

impl Server {
    /// The server of a cloud, started if it is not yet; none where it is not installed, which is said.
    #[must_use]
    pub fn of(cloud: Cloud) -> Option<&'static Self> {
        static SERVERS: [OnceLock<Option<Server>>; 3] = [const { OnceLock::new() }; 3];
        let server = SERVERS[cloud as usize].get_or_init(|| match cloud {
            Cloud::S3 => moto(),
            Cloud::Azure => azurite(),
            Cloud::Gcs => Some(Self { cloud, address: gcs::start(BUCKET), _process: None }),
        });
        if server.is_none() {
            let (variable, what) = if cloud == Cloud::S3 { (MOTO, "moto") } else { (AZURITE, "Azurite") };
            println!("SKIPPED on {cloud:?}: {variable} names no {what}; `cargo xtask check` installs it");
        }
        server.as_ref()
    }

    /// The URL of a folder in the bucket.
    #[must_use]
    pub fn url(&self, folder: &str) -> String {
        let scheme = match self.cloud {
            Cloud::S3 => "s3",
            Cloud::Azure => "az",
            Cloud::Gcs => "gs",
        };
        format!("{scheme}://{BUCKET}/{folder}")
    }

    /// The environment by which a program finds the server, or a proxy before it.
    #[must_use]
    pub fn variables(&self, through: SocketAddr) -> Vec<(&'static str, String)> {
        match self.cloud {
            Cloud::S3 => vec![
                ("AWS_ENDPOINT_URL", format!("http://{through}")),
                ("AWS_ALLOW_HTTP", "true".into()),
                ("AWS_ACCESS_KEY_ID", "test".into()),
                ("AWS_SECRET_ACCESS_KEY", "testtest".into()),
            ],
            Cloud::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", format!("http://{through}/{ACCOUNT}")),
                ("AZURE_ALLOW_HTTP", "true".into()),
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.into()),
                ("AZURE_STORAGE_ACCOUNT_KEY", KEY.into()),
            ],
            Cloud::Gcs => vec![
                ("GOOGLE_BASE_URL", format!("http://{through}")),
                ("GOOGLE_ALLOW_HTTP", "true".into()),
                ("GOOGLE_SERVICE_ACCOUNT_KEY", gcs::ANYBODY.into()),
            ],
        }
    }

    /// A store at a folder of the bucket.
    #[must_use]
    pub fn store(&self, folder: &str) -> Store {
        self.store_through(self.address, folder)
    }

    /// The same through a proxy.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn store_through(&self, proxy: SocketAddr, folder: &str) -> Store {
        let variables = self.variables(proxy);
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Store::open_with(&self.url(folder), &variables).expect("the store can be opened")
    }
}

fn moto() -> Option<Server> {
    let python = std::env::var_os(MOTO)?;
    let port = free_port();
    let mut command = Command::new(python);
    command.args(["-c", MOTO_SCRIPT, "-H", "127.0.0.1", "-p", &port.to_string()]);
    let (process, moto) = start(command, port);
    let made = http::wait(http::send(moto, request(Method::PUT, &format!("/{BUCKET}"), moto)));
    assert!(made.is_ok_and(|r| r.status().is_success()), "moto makes no bucket");
    Some(Server { cloud: Cloud::S3, address: Proxy::in_a_row(moto).address, _process: Some(process) })
}

fn azurite() -> Option<Server> {
    let package = std::env::var_os(AZURITE)?;
    let port = free_port();
    let mut command = Command::new("node");
    command.args(["-e", AZURITE_SCRIPT]).arg(Path::new(&package).join("dist/src/blob/main.js"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
    command.args(["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]);
    let (process, address) = start(command, port);
    let made = http::wait(http::send(address, new_container(address)));
    assert!(made.as_ref().is_ok_and(|r| r.status().is_success()), "Azurite makes no container: {made:?}");
    Some(Server { cloud: Cloud::Azure, address, _process: Some(process) })
}

/// The signed request for the container, which the client of stores has no call for.
fn new_container(address: SocketAddr) -> Request<Bytes> {
    let path = format!("/{ACCOUNT}/{BUCKET}?restype=container");
    let mut request: HttpRequest = Request::new(HttpRequestBody::empty());
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = format!("http://{address}{path}").parse().expect("it is a URL");
    let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("it is a key"));
    AzureAuthorizer::new(&key, ACCOUNT).authorize(&mut request);
    let mut plain = self::request(Method::PUT, &path, address);
    plain.headers_mut().extend(request.headers().clone());
    plain
}

fn request(method: Method, path: &str, host: SocketAddr) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(path).header(HOST, host.to_string());
    request.body(Bytes::new()).expect("it is a request")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// Starts a server and waits until it listens.
fn start(mut command: Command, port: u16) -> (Child, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    command.current_dir(std::env::temp_dir()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none() && started.elapsed() < START, "{command:?} does not listen: {ended:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    (child, address)
}
