//! Who may call what: roles by certificate and by token, and everybody else refused in words.

use coordinator::access::Access;
use coordinator::{Coordinator, Error, Options};
use data::store::Store;
use proto::{Endpoint, EndpointError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::site::{Site, certify, list, mllm4rec, printed, register, submit_nonsense};

#[tokio::test]
async fn a_workers_certificate_opens_a_session_and_nothing_else() {
    let site = Site::guarded(false).await;
    let worker = site.holder("worker");
    register(&worker).await.unwrap();
    let refused = list(&worker).await.unwrap_err();
    assert!(matches!(refused, EndpointError::NotAllowed { .. }), "{refused}");
    assert_eq!(submit_nonsense(&worker).await.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn people_do_what_their_role_allows() {
    let site = Site::guarded(false).await;
    site.add("viewer", "vic");
    site.add("submitter", "sue");
    for (name, submits) in [("operator", true), ("submitter-sue", true), ("viewer-vic", false)] {
        let endpoint = site.holder(name);
        assert_eq!(list(&endpoint).await.unwrap(), 0, "{name}");
        let answer = submit_nonsense(&endpoint).await;
        let wanted = if submits { Code::InvalidArgument } else { Code::PermissionDenied };
        assert_eq!(answer.code(), wanted, "{name}: {}", answer.message());
        let refused = register(&endpoint).await.err().unwrap();
        assert!(matches!(refused, EndpointError::NotAllowed { .. }), "{name}: {refused}");
    }
    let said = submit_nonsense(&site.holder("viewer-vic")).await.message().to_owned();
    assert_eq!(said, "vic (viewer) may not call Submit: it is for submitter, operator");
}

#[tokio::test]
async fn a_token_works_until_it_is_revoked() {
    let site = Site::guarded(true).await;
    let ann = site.bearer(&site.token("submitter", "ann"));
    let bo = site.bearer(&site.token("viewer", "bo"));
    assert_eq!(list(&ann).await.unwrap(), 0);
    assert_eq!(submit_nonsense(&ann).await.code(), Code::InvalidArgument);
    assert_eq!(submit_nonsense(&bo).await.code(), Code::PermissionDenied);
    // A connection that is open already is asked again.
    let mut open = proto::pb::jobs_client::JobsClient::new(ann.connect().await.unwrap());
    open.list(proto::pb::ListRequest {}).await.unwrap();

    printed(&["token", "revoke", "ann", "--tokens", site.path("tokens.toml").to_str().unwrap()]);
    let refused = open.list(proto::pb::ListRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{}", refused.message());
    let refused = list(&ann).await.unwrap_err();
    assert!(matches!(refused, EndpointError::NotKnown { .. }) && refused.to_string().contains("revoked"), "{refused}");
    assert_eq!(list(&bo).await.unwrap(), 0);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let site = Site::guarded(true).await;
    let ann = site.bearer(&site.token("viewer", "ann"));
    assert_eq!(list(&ann).await.unwrap(), 0);
    let file = site.path("tokens.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let ended: Vec<&str> = text
        .lines()
        .map(|line| if line.starts_with("expires") { "expires = 2020-01-31T00:00:00Z" } else { line })
        .collect();
    assert_ne!(ended.join("\n").trim(), text.trim());
    std::fs::write(&file, ended.join("\n")).unwrap();
    let refused = list(&ann).await.unwrap_err().to_string();
    assert!(refused.contains("the token of ann has expired"), "{refused}");
    let shown = printed(&["token", "list", "--tokens", file.to_str().unwrap()]);
    assert!(shown.contains("ann") && shown.contains("2020-01-31T00:00:00Z") && shown.contains("expired"), "{shown}");
}

#[tokio::test]
async fn a_broken_file_of_tokens_lets_nobody_in_by_token() {
    let site = Site::guarded(true).await;
    let ann = site.bearer(&site.token("viewer", "ann"));
    std::fs::write(site.path("tokens.toml"), "[[token]").unwrap();
    let refused = list(&ann).await.unwrap_err().to_string();
    assert!(refused.contains("file of tokens cannot be read"), "{refused}");
    assert_eq!(list(&site.holder("operator")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stranger_is_refused_with_words() {
    let by_certificate = Site::guarded(false).await;
    let refused = list(&by_certificate.stranger()).await.unwrap_err();
    assert!(matches!(refused, EndpointError::CertificateRefused { .. }), "{refused}");
    assert!(refused.to_string().contains("--tls-cert") && !refused.may_pass(), "{refused}");

    let by_token_too = Site::guarded(true).await;
    let refused = list(&by_token_too.stranger()).await.unwrap_err();
    assert!(matches!(refused, EndpointError::NotKnown { .. }), "{refused}");
    assert!(refused.to_string().contains("--tls-cert") && refused.to_string().contains("MLLM4REC_TOKEN"), "{refused}");
    assert!(matches!(register(&by_token_too.stranger()).await, Err(EndpointError::NotKnown { .. })));
}

/// The alert comes after our side of the handshake is done, and races with the request and with the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_certificate_is_heard() {
    let site = Site::guarded(false).await;
    certify(&site.path("others"));
    let file = |name: &str| Some(site.path("others").join(name));
    let forged = Endpoint { cert: file("worker.pem"), key: file("worker-key.pem"), ..site.stranger() };
    for who in [site.stranger(), forged] {
        for attempt in 0..200 {
            let refused = if attempt % 2 == 0 { list(&who).await.err() } else { register(&who).await.err() }.unwrap();
            assert!(matches!(refused, EndpointError::CertificateRefused { .. }), "{attempt}: {refused}");
        }
    }
}

/// Something that says the same to whoever asks by HTTP/2.
async fn saying(answer: &'static [u8]) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                request(&mut connection).await?;
                connection.write_all(answer).await?;
                tokio::io::copy(&mut connection, &mut tokio::io::sink()).await
            });
        }
    });
    Endpoint::open(format!("http://{address}"))
}

/// Reads up to the first HEADERS: the preface of a connection, and frames.
async fn request(connection: &mut TcpStream) -> std::io::Result<()> {
    const HEADERS: u8 = 1;
    connection.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        connection.read_exact(&mut vec![0; length]).await?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_and_is_no_coordinator_is_waited_for() {
    // SETTINGS and their acknowledgement, then HEADERS of stream 1 with `:status: 404` (index 13 of HPACK's table).
    let not_found = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x8d";
    let answers: [(&[u8], &str); 2] =
        [(not_found, "HTTP status 404"), (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP/1")];
    for (answer, words) in answers {
        let proxy = saying(answer).await;
        for refused in [list(&proxy).await.unwrap_err(), register(&proxy).await.err().unwrap()] {
            assert!(matches!(refused, EndpointError::Unreachable { .. }) && refused.may_pass(), "{refused:?}");
            let said = refused.to_string();
            assert!(said.contains("no coordinator") && said.contains(words), "{said}");
        }
        let output = mllm4rec(&["ps", "--coordinator", &proxy.url]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(75) && said.contains("what answers there is no coordinator"), "{said}");
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_named() {
    let site = Site::guarded(false).await;
    let mixed = Endpoint { key: Some(site.certificate("worker-key.pem")), ..site.holder("operator") };
    let refused = list(&mixed).await.unwrap_err();
    assert!(matches!(refused, EndpointError::File { .. }) && !refused.may_pass(), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("operator.pem") && said.contains("worker-key.pem"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    for with_tokens in [false, true] {
        let site = Site::guarded(with_tokens).await;
        certify(&site.path("others"));
        let file = |name: &str| Some(site.path("others").join(name));
        let forged = Endpoint { cert: file("worker.pem"), key: file("worker-key.pem"), ..site.stranger() };
        let refused = register(&forged).await.err().unwrap();
        assert!(matches!(refused, EndpointError::CertificateRefused { .. }), "{refused}");
        assert!(refused.to_string().contains("worker.pem") && refused.to_string().contains("--client-ca"), "{refused}");
        // A server's certificate is none of a client, though the right authority has signed it.
        let server = register(&site.holder("server")).await.err().unwrap();
        assert!(matches!(server, EndpointError::CertificateRefused { .. }), "{server}");
    }
}

#[tokio::test]
async fn a_coordinator_that_is_not_the_right_one_is_refused() {
    let site = Site::guarded(false).await;
    certify(&site.path("others"));
    let port = site.coordinator.address().port();
    let operator = site.holder("operator");
    let misled = Endpoint { ca: Some(site.path("others").join("ca.pem")), ..operator.clone() };
    let refused = list(&misled).await.unwrap_err();
    assert!(matches!(refused, EndpointError::UnknownAuthority { .. }), "{refused}");
    assert!(refused.to_string().contains("others/ca.pem"), "{refused}");
    let elsewhere = Endpoint { url: format!("https://127.0.0.2:{port}"), ..operator.clone() };
    let refused = list(&elsewhere).await.unwrap_err();
    assert!(matches!(refused, EndpointError::WrongHost { .. }), "{refused}");
    let in_the_clear = Endpoint::open(format!("http://127.0.0.1:{port}"));
    let refused = list(&in_the_clear).await.unwrap_err();
    assert!(matches!(refused, EndpointError::MaybeTls { .. }), "{refused}");
}

#[tokio::test]
async fn on_this_machine_nothing_is_asked() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().to_str().unwrap()).unwrap();
    let coordinator = Coordinator::start(store, Options::default()).await.unwrap();
    let address = coordinator.address();
    assert_eq!(list(&Endpoint::open(format!("http://{address}"))).await.unwrap(), 0);
    register(&Endpoint::open(format!("http://{address}"))).await.unwrap();
    let refused = list(&Endpoint::open(format!("https://{address}"))).await.unwrap_err();
    assert!(matches!(refused, EndpointError::NoTls { .. }), "{refused}");
    coordinator.stop().await.unwrap();
}

#[tokio::test]
async fn beyond_this_machine_nobody_listens_without_tls() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().to_str().unwrap()).unwrap();
    let options = Options { listen: "0.0.0.0:0".parse().unwrap(), access: Access::Open, ..Options::default() };
    let refused = Coordinator::start(store, options).await.unwrap_err();
    assert!(matches!(refused, Error::Access(_)), "{refused}");
    assert!(refused.to_string().contains("--client-ca") && refused.to_string().contains("mllm4rec certs"), "{refused}");
    assert!(!root.path().join("_control/v1/leader").exists(), "the lead was taken before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_command_says_what_is_wrong_and_ends() {
    let site = Site::guarded(false).await;
    let url = site.stranger().url;
    let certificate = |name: &str| site.certificate(name).display().to_string();
    let worker = |ca: &str, more: &[&str]| {
        let output = mllm4rec(&[&["worker", "--devices", "cpu", "--coordinator", &url, "--tls-ca", ca], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (ca, operator, key) = (certificate("ca.pem"), certificate("operator.pem"), certificate("operator-key.pem"));
    let (code, said) = worker(&ca, &["--tls-cert", &operator, "--tls-key", &key]);
    assert!(code == Some(64) && said.contains("operator (operator) may not call Session: it is for worker"), "{said}");
    let (code, said) = worker(&ca, &["--tls-cert", &operator]);
    assert!(code == Some(64) && said.contains("--tls-key must be given too"), "{said}");
    let (code, said) = worker(&key, &[]);
    assert!(code == Some(64) && said.contains("no certificate in it"), "{said}");
    assert!(!said.contains("BEGIN PRIVATE"), "{said}");
}
