#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::Code;

use super::connection::Peer;
use super::fresh::Fresh;
use super::guard::Guard;
use super::tokens::{self, Expiry, Tokens};
use super::*;

const PROTO: &str = include_str!("../../../proto/proto/mllm4rec.proto");

/// The paths of all methods of the contract.
fn methods() -> Vec<String> {
    let mut service = "";
    let mut methods = Vec::new();
    for line in PROTO.lines() {
        let mut words = line.split([' ', '(']).filter(|word| !word.is_empty());
        match (words.next(), words.next()) {
            (Some("service"), Some(name)) => service = name,
            (Some("rpc"), Some(name)) => methods.push(format!("/mllm4rec.v1.{service}/{name}")),
            _ => {}
        }
    }
    methods
}

#[test]
fn every_method_of_the_contract_is_somebodys() {
    let methods = methods();
    assert!(methods.len() >= 6, "{methods:?}");
    for method in methods {
        assert!(!roles::that_may_call(&method).is_empty(), "{method} must be in the table of roles.rs");
    }
}

#[test]
fn roles_have_their_methods_and_no_others() {
    let may = |role: Role, method: &str| roles::that_may_call(&format!("/mllm4rec.v1.{method}")).contains(&role);
    for (method, viewer, submitter, operator, worker) in [
        ("Jobs/Get", true, true, true, false),
        ("Jobs/List", true, true, true, false),
        ("Jobs/Watch", true, true, true, false),
        ("Jobs/Submit", false, true, true, false),
        ("Jobs/Resume", false, true, true, false),
        ("Jobs/Cancel", false, true, true, false),
        ("Workers/Session", false, false, false, true),
        ("Jobs/Delete", false, false, false, false),
        ("Jobs/Submit/", false, false, false, false),
        ("jobs/submit", false, false, false, false),
    ] {
        let found = [Role::Viewer, Role::Submitter, Role::Operator, Role::Worker].map(|role| may(role, method));
        assert_eq!(found, [viewer, submitter, operator, worker], "{method}");
    }
}

#[test]
fn a_certificate_names_its_holder() {
    let known = |name: &str, role| Ok(Caller::Known { name: name.to_owned(), role });
    assert_eq!(certificate::named_by(["spiffe://mllm4rec/worker/gpu-7"].into_iter()), known("gpu-7", Role::Worker));
    assert_eq!(certificate::named_by(["spiffe://mllm4rec/operator"].into_iter()), known("operator", Role::Operator));
    let beside = ["https://example.org/", "spiffe://elsewhere/operator", "spiffe://mllm4rec/viewer/ann"];
    assert_eq!(certificate::named_by(beside.into_iter()), known("ann", Role::Viewer));
    assert_eq!(
        certificate::named_by([uri_of(Role::Submitter, "bo").as_str()].into_iter()),
        known("bo", Role::Submitter)
    );
}

#[test]
fn a_certificate_that_names_no_role_or_two_is_nobodys() {
    for uris in [
        &[][..],
        &["spiffe://elsewhere/operator"],
        &["spiffe://mllm4rec/"],
        &["spiffe://mllm4rec/root/x"],
        &["spiffe://mllm4rec/Operator/x"],
        &["spiffe://mllm4rec/operator/"],
        &["spiffe://mllm4rec/operator/a/b"],
        &["spiffe://mllm4rec/operator/line\nbreak"],
        &["spiffe://mllm4rec/viewer/x", "spiffe://mllm4rec/operator/x"],
        &["spiffe://mllm4rec.example/operator/x"],
    ] {
        let said = certificate::named_by(uris.iter().copied()).unwrap_err();
        assert!(said.contains("client certificate") && !said.contains('\n'), "{uris:?}: {said}");
    }
}

#[test]
fn the_uri_is_read_from_a_real_certificate() {
    let mut params = CertificateParams::new(["host.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let uri = Ia5String::try_from(uri_of(Role::Worker, "w1")).unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(certificate::holder(made.der()), Ok(Caller::Known { name: "w1".into(), role: Role::Worker }));
    let bare = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(certificate::holder(bare.der()).unwrap_err().contains("exactly one URI"));
    assert!(certificate::holder(&CertificateDer::from(vec![0x30, 0x03, 1, 2])).unwrap_err().contains("damaged"));
}

fn token_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// The hash of `m4r_test`, by another program.
const TEST_HASH: &str = "d45d8ad47912c8d2ebdc0951fb23e72a579ef97d61148cc66b6093546e7c14cf";

#[test]
fn a_token_is_known_by_its_hash() {
    let (_folder, file) =
        token_file(&format!("[[token]]\nname = \"ann\"\nrole = \"viewer\"\nsha256 = \"{TEST_HASH}\"\n"));
    let tokens = Tokens::read(&file).unwrap();
    let ann = tokens.find(b"m4r_test").unwrap();
    assert_eq!((ann.name.as_str(), ann.role, ann.expired(SystemTime::now())), ("ann", Role::Viewer, false));
    assert!(tokens.find(b"m4r_tesu").is_none());
    assert!(tokens.find(b"").is_none());
}

#[test]
fn a_token_ends_at_its_moment_in_any_time_zone() {
    let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
    for expires in
        ["2030-05-01T12:00:00Z", "2030-05-01T14:30:00+02:30", "\"2030-05-01T12:00:00Z\"", "2030-05-01T04:00:00-08:00"]
    {
        let (_folder, file) = token_file(&format!(
            "[[token]]\nname = \"ann\"\nrole = \"viewer\"\nsha256 = \"{TEST_HASH}\"\nexpires = {expires}\n"
        ));
        let tokens = Tokens::read(&file).unwrap();
        assert!(!tokens.0[0].expired(at("2030-05-01T11:59:59Z")), "{expires}");
        assert!(tokens.0[0].expired(at("2030-05-01T12:00:00Z")), "{expires}");
    }
}

#[test]
fn a_file_of_tokens_that_cannot_be_trusted_is_refused_and_not_quoted() {
    let entry = |role: &str, sha: &str, more: &str| {
        format!("[[token]]\nname = \"ann\"\nrole = \"{role}\"\nsha256 = \"{sha}\"\n{more}\n")
    };
    for (text, word) in [
        (entry("worker", TEST_HASH, ""), "workers are known by their certificates"),
        (entry("root", TEST_HASH, ""), "no role"),
        (entry("viewer", "m4r_pasted", ""), "64 hexadecimal digits"),
        (entry("viewer", TEST_HASH, "expires = 2030-05-01"), "2027-01-31T00:00:00Z"),
        (entry("viewer", TEST_HASH, "expire = 2030-05-01T00:00:00Z"), "unknown field"),
        (entry("viewer", TEST_HASH, "m4r_pasted"), ""),
    ] {
        let (_folder, file) = token_file(&text);
        let said = Tokens::read(&file).unwrap_err().to_string();
        assert!(said.contains("tokens.toml") && said.contains(word) && !said.contains("m4r_pasted"), "{said}");
    }
}

#[test]
fn tokens_are_made_told_once_and_revoked() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let expires = Expiry::in_days(SystemTime::now(), 1);
    let ann = tokens::create(&file, "ann", Role::Submitter, Some(expires)).unwrap();
    let bo = tokens::create(&file, "bo", Role::Viewer, None).unwrap();
    assert!(ann.reveal().starts_with("m4r_") && ann.reveal().len() == 47 && ann.reveal() != bo.reveal());
    assert!(!format!("{ann:?}").contains(ann.reveal()));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(ann.reveal()) && !text.contains("m4r_"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let known = Tokens::read(&file).unwrap();
    assert_eq!(known.find(ann.reveal().as_bytes()).unwrap().name, "ann");
    assert!(!known.0[0].expired(SystemTime::now()));
    assert!(known.0[0].expired(SystemTime::now() + Duration::from_secs(25 * 60 * 60)));
    assert!(matches!(tokens::create(&file, "ann", Role::Viewer, None), Err(AccessError::TokenExists { .. })));
    assert!(matches!(tokens::create(&file, "w", Role::Worker, None), Err(AccessError::WorkerToken)));
    assert!(matches!(tokens::create(&file, "a b", Role::Viewer, None), Err(AccessError::Name { .. })));

    tokens::revoke(&file, "ann").unwrap();
    let known = Tokens::read(&file).unwrap();
    assert!(known.find(ann.reveal().as_bytes()).is_none());
    assert!(known.find(bo.reveal().as_bytes()).is_some());
    assert!(matches!(tokens::revoke(&file, "ann"), Err(AccessError::NoToken { .. })));
}

#[test]
fn changed_files_are_used_and_broken_ones_are_told() {
    let (_folder, file) = token_file("1");
    let own = file.clone();
    let number = Fresh::new(vec![file.clone()], move || {
        let text = std::fs::read_to_string(&own).map_err(|e| AccessError::file(&own, e))?;
        text.parse::<u32>().map_err(|e| AccessError::file(&own, e))
    })
    .unwrap();
    assert_eq!((*number.latest(), number.current().map(|n| *n)), (1, Ok(1)));
    std::fs::write(&file, "22").unwrap();
    assert_eq!(number.current().map(|n| *n), Ok(22));
    std::fs::write(&file, "three").unwrap();
    assert!(number.current().unwrap_err().contains("tokens.toml"));
    assert_eq!(*number.latest(), 22);
    std::fs::remove_file(&file).unwrap();
    assert!(number.current().is_err());
    std::fs::write(&file, "4").unwrap();
    assert_eq!(number.current().map(|n| *n), Ok(4));
}

#[test]
fn beyond_this_machine_nobody_listens_unguarded() {
    for address in ["127.0.0.1:7070", "127.8.8.8:1", "[::1]:7070", "[::ffff:127.0.0.1]:7070"] {
        assert!(Access::Open.door(address.parse().unwrap()).is_ok(), "{address}");
    }
    for address in ["0.0.0.0:7070", "[::]:7070", "192.168.1.4:7070", "[::ffff:10.0.0.1]:7070"] {
        let said = Access::Open.door(address.parse::<SocketAddr>().unwrap()).err().unwrap().to_string();
        for word in [address, "--tls-cert", "--tls-key", "--client-ca", "mllm4rec certs"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

#[test]
fn files_that_belong_together_are_given_together() {
    let file = || Some(PathBuf::from("x.pem"));
    assert!(matches!(Access::from_flags(AccessFlags::default()), Ok(Access::Open)));
    let all = AccessFlags { tls_cert: file(), tls_key: file(), client_ca: file(), tokens: None };
    assert!(matches!(Access::from_flags(all.clone()), Ok(Access::Guarded(_))));
    for (flags, missing) in [
        (AccessFlags { client_ca: None, ..all.clone() }, "--client-ca must"),
        (AccessFlags { tls_key: None, client_ca: None, ..all }, "--tls-key, --client-ca must"),
        (AccessFlags { tokens: file(), ..AccessFlags::default() }, "--tls-cert, --tls-key, --client-ca must"),
    ] {
        let said = Access::from_flags(flags).unwrap_err().to_string();
        assert!(said.starts_with(missing) && said.contains("mllm4rec certs"), "{said}");
    }
}

#[test]
fn a_guard_asks_who_calls_before_what() {
    let (_folder, file) =
        token_file(&format!("[[token]]\nname = \"ann\"\nrole = \"viewer\"\nsha256 = \"{TEST_HASH}\"\n"));
    let fresh = Fresh::new(vec![file.clone()], move || Tokens::read(&file)).unwrap();
    let guard = Guard::Roles { tokens: Some(std::sync::Arc::new(fresh)) };
    let strict = Guard::Roles { tokens: None };
    let peer = |holder| Peer { address: "10.0.0.1:5".parse().unwrap(), holder };
    let operator = peer(Some(Ok(Caller::Known { name: "op".into(), role: Role::Operator })));
    let (submit, list, session) =
        ("/mllm4rec.v1.Jobs/Submit", "/mllm4rec.v1.Jobs/List", "/mllm4rec.v1.Workers/Session");
    let code = |guard: &Guard, method: &str, token: Option<&[u8]>, peer: &Peer| {
        guard.admit(method, token, Some(peer)).map_err(|status| status.code()).map(|caller| caller.to_string())
    };
    let token: Option<&[u8]> = Some(b"Bearer m4r_test");
    assert_eq!(code(&guard, submit, None, &operator), Ok("op (operator)".to_owned()));
    assert_eq!(code(&guard, session, None, &operator), Err(Code::PermissionDenied));
    assert_eq!(code(&guard, "/grpc.health.v1.Health/Check", None, &operator), Err(Code::PermissionDenied));
    assert_eq!(code(&guard, list, token, &peer(None)), Ok("ann (viewer)".to_owned()));
    assert_eq!(
        code(&guard, submit, token, &operator),
        Err(Code::PermissionDenied),
        "a token stands before a certificate"
    );
    assert_eq!(code(&guard, submit, Some(b"Bearer m4r_wrong"), &operator), Err(Code::Unauthenticated));
    assert_eq!(code(&guard, list, Some(b"m4r_test"), &peer(None)), Err(Code::Unauthenticated));
    assert_eq!(code(&guard, list, None, &peer(None)), Err(Code::Unauthenticated));
    assert_eq!(code(&guard, list, None, &peer(Some(Err("no role".into())))), Err(Code::Unauthenticated));
    assert_eq!(code(&strict, list, token, &peer(None)), Err(Code::Unauthenticated));
    assert_eq!(Guard::Open.admit(submit, None, None).unwrap(), Caller::Local);
}
