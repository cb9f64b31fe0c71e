//! A coordinator in this process, with certificates that the real binary has made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coordinator::access::{Access, AccessFiles};
use coordinator::{Coordinator, Options};
use data::store::Store;
use mllm4rec_integration_tests::program::binary;
use proto::pb::jobs_client::JobsClient;
use proto::pb::workers_client::WorkersClient;
use proto::pb::{ListRequest, SubmitRequest};
use proto::{Endpoint, EndpointError, FromWorker, PROTOCOL, Register, ToWorker, Token, pb};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Runs a command of the binary.
pub(crate) fn mllm4rec(args: &[&str]) -> Output {
    Command::new(binary()).args(args).env_remove("RUST_LOG").output().unwrap()
}

/// The same, and what it printed.
pub(crate) fn printed(args: &[&str]) -> String {
    let output = mllm4rec(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an authority with its first certificates.
pub(crate) fn certify(folder: &Path) {
    printed(&["certs", "--out", folder.to_str().unwrap()]);
}

/// A coordinator and its folder; gone at the end of the test.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) coordinator: Coordinator,
}

impl Site {
    /// Starts a guarded coordinator on every address of this machine.
    pub(crate) async fn guarded(with_tokens: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certify(&folder.path().join("certs"));
        let file = |name: &str| folder.path().join("certs").join(name);
        let tokens = with_tokens.then(|| {
            let path = folder.path().join("tokens.toml");
            std::fs::write(&path, "").unwrap();
            path
        });
        let files = AccessFiles {
            tls_cert: file("server.pem"),
            tls_key: file("server-key.pem"),
            client_ca: file("ca.pem"),
            tokens,
        };
        let options =
            Options { listen: "0.0.0.0:0".parse().unwrap(), access: Access::Guarded(files), ..Options::default() };
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let coordinator = Coordinator::start(Store::open(root.to_str().unwrap()).unwrap(), options).await.unwrap();
        Self { folder, coordinator }
    }

    /// A file of the certificates.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.path("certs").join(name)
    }

    /// A file of the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The coordinator as somebody without a name sees it.
    pub(crate) fn stranger(&self) -> Endpoint {
        let url = format!("https://127.0.0.1:{}", self.coordinator.address().port());
        Endpoint { url, ca: Some(self.certificate("ca.pem")), ..Endpoint::default() }
    }

    /// The coordinator as the holder of a certificate sees it.
    pub(crate) fn holder(&self, name: &str) -> Endpoint {
        let file = |ending: &str| Some(self.certificate(&format!("{name}{ending}")));
        Endpoint { cert: file(".pem"), key: file("-key.pem"), ..self.stranger() }
    }

    /// The coordinator as somebody with a token sees it.
    pub(crate) fn bearer(&self, token: &str) -> Endpoint {
        Endpoint { token: Some(Token::new(token).unwrap()), ..self.stranger() }
    }

    /// Makes a token.
    pub(crate) fn token(&self, role: &str, name: &str) -> String {
        let tokens = self.path("tokens.toml");
        let create = ["token", "create", "--role", role, "--name", name, "--tokens", tokens.to_str().unwrap()];
        printed(&create).trim().to_owned()
    }

    /// Makes one more certificate, `ROLE-NAME.pem`.
    pub(crate) fn add(&self, role: &str, name: &str) {
        printed(&["certs", "--out", self.path("certs").to_str().unwrap(), "--add", role, name]);
    }
}

/// Lists the jobs.
pub(crate) async fn list(endpoint: &Endpoint) -> Result<usize, EndpointError> {
    let mut client = JobsClient::new(endpoint.connect().await?);
    let reply = client.list(ListRequest {}).await.map_err(|status| endpoint.explain(&status))?;
    Ok(reply.into_inner().jobs.len())
}

/// Submits what is no job. Whoever may submit hears what is wrong with it.
pub(crate) async fn submit_nonsense(endpoint: &Endpoint) -> tonic::Status {
    let mut client = JobsClient::new(endpoint.connect().await.unwrap());
    client.submit(SubmitRequest { job_toml: "nonsense = true".to_owned() }).await.unwrap_err()
}

/// A worker's conversation, begun.
pub(crate) struct Session {
    /// What the worker says goes in here; the session ends with it.
    pub(crate) to_coordinator: mpsc::Sender<FromWorker>,
    pub(crate) from_coordinator: Streaming<pb::CoordinatorMessage>,
}

/// Registers a worker.
pub(crate) async fn register(endpoint: &Endpoint) -> Result<Session, EndpointError> {
    let (to_coordinator, said) = mpsc::channel(8);
    let register = Register {
        protocol: PROTOCOL,
        build: "test".into(),
        name: "test".into(),
        threads: 1,
        device: "cpu".into(),
        term: 0,
        claims: Vec::new(),
        job: None,
    };
    to_coordinator.send(FromWorker::Register(register)).await.unwrap();
    let mut client = WorkersClient::new(endpoint.connect().await?);
    let said = ReceiverStream::new(said).map(pb::WorkerMessage::from);
    let mut from_coordinator = client.session(said).await.map_err(|status| endpoint.explain(&status))?.into_inner();
    let first = from_coordinator.message().await.unwrap().unwrap();
    assert!(matches!(ToWorker::try_from(first).unwrap(), ToWorker::Welcome(_)));
    Ok(Session { to_coordinator, from_coordinator })
}
