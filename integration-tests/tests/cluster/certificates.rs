//! `mllm4rec certs`: what it makes, what it spares, and how it is renewed.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proto::{Endpoint, EndpointError};

use crate::site::{Site, certify, list, mllm4rec, printed, register};

#[test]
fn keys_are_for_their_owner_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("certs");
    let said = printed(&["certs", "--out", out.to_str().unwrap(), "--host", "cluster.example"]);
    for part in ["mllm4rec coordinator", "--client-ca", "mllm4rec worker", "https://cluster.example:7070", "ca-key.pem"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let names = ["ca", "server", "worker", "operator"];
    for name in names {
        let mode = |ending: &str| {
            let file = out.join(format!("{name}{ending}"));
            std::fs::metadata(file).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("-key.pem"), mode(".pem") & 0o600), (0o600, 0o600), "{name}");
    }
    let read = || names.map(|name| std::fs::read(out.join(format!("{name}-key.pem"))).unwrap());
    let before = read();
    let again = mllm4rec(&["certs", "--out", out.to_str().unwrap()]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(64) && said.contains("never overwritten"), "{said}");
    assert_eq!(read(), before);
    // One that is lost is not taken for a fresh start either.
    std::fs::remove_file(out.join("ca.pem")).unwrap();
    assert_eq!(mllm4rec(&["certs", "--out", out.to_str().unwrap()]).status.code(), Some(64));
}

#[test]
fn what_cannot_be_added_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let said = |args: &[&str]| {
        let output = mllm4rec(&[&["certs", "--out", out], args].concat());
        assert_eq!(output.status.code(), Some(64));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&["--add", "worker", "w1"]).contains("makes an authority"));
    certify(folder.path());
    assert!(said(&["--add", "root", "x"]).contains("no role `root`"));
    assert!(said(&["--add", "worker", "../x"]).contains("is no name"));
    printed(&["certs", "--out", out, "--add", "worker", "w1"]);
    assert!(said(&["--add", "worker", "w1"]).contains("worker-w1"));
}

#[tokio::test]
async fn an_added_worker_is_let_in() {
    let site = Site::guarded(false).await;
    site.add("worker", "gpu-7");
    register(&site.holder("worker-gpu-7")).await.unwrap();
}

/// The certificate and its key are two files: between the two moves nothing fits, and what was in use stays in use.
#[tokio::test]
async fn a_renewed_server_certificate_is_used_without_a_restart() {
    let site = Site::guarded(false).await;
    certify(&site.path("new"));
    let operator = site.holder("operator");
    let (old, new) = (operator.clone(), Endpoint { ca: Some(site.path("new").join("ca.pem")), ..operator });
    assert!(matches!(list(&new).await, Err(EndpointError::UnknownAuthority { .. })));
    std::fs::rename(site.path("new").join("server.pem"), site.certificate("server.pem")).unwrap();
    assert_eq!(list(&old).await.unwrap(), 0);
    std::fs::rename(site.path("new").join("server-key.pem"), site.certificate("server-key.pem")).unwrap();
    assert_eq!(list(&new).await.unwrap(), 0);
    assert!(matches!(list(&old).await, Err(EndpointError::UnknownAuthority { .. })));
}

/// Two authorities at once while one takes over from the other; then the old one is taken out, and all that it signed.
#[tokio::test]
async fn an_authority_is_replaced_without_a_restart() {
    let site = Site::guarded(false).await;
    certify(&site.path("new"));
    let file = |name: &str| Some(site.path("new").join(name));
    let newcomer = Endpoint { cert: file("worker.pem"), key: file("worker-key.pem"), ..site.stranger() };
    assert!(matches!(register(&newcomer).await, Err(EndpointError::CertificateRefused { .. })));
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let (old_ca, new_ca) = (read(site.certificate("ca.pem")), read(site.path("new").join("ca.pem")));
    // The site's `ca.pem` is also what its clients trust.
    std::fs::write(site.path("trusted.pem"), &old_ca).unwrap();
    let trusting = |endpoint: Endpoint| Endpoint { ca: Some(site.path("trusted.pem")), ..endpoint };
    std::fs::write(site.certificate("ca.pem"), format!("{old_ca}{new_ca}")).unwrap();
    register(&trusting(newcomer.clone())).await.unwrap();
    register(&trusting(site.holder("worker"))).await.unwrap();
    std::fs::write(site.certificate("ca.pem"), &new_ca).unwrap();
    register(&trusting(newcomer)).await.unwrap();
    let refused =
        tokio::time::timeout(Duration::from_secs(20), register(&trusting(site.holder("worker")))).await.unwrap();
    assert!(matches!(refused, Err(EndpointError::CertificateRefused { .. })));
}
