#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use tonic::{Code, Status};

use super::*;

fn refused(endpoint: &Endpoint) -> String {
    endpoint.uri().unwrap_err().to_string()
}

#[test]
fn an_address_is_checked_before_anybody_is_called() {
    for url in ["https://host:7070", "http://127.0.0.1:7070", "http://[::1]:7070", "https://[fd00::1]:7070"] {
        assert!(Endpoint::open(url).uri().is_ok(), "{url}");
    }
    for url in ["host:7070", "host", "ftp://host:7070", "https://", "", "https://a b"] {
        let said = refused(&Endpoint::open(url));
        assert!(said.contains("https://host:7070"), "{url}: {said}");
    }
}

#[test]
fn nothing_secret_goes_over_a_wire_that_others_read() {
    let token = Token::new(" m4r_x\n");
    let with = |url: &str| Endpoint { token: token.clone(), ..Endpoint::open(url) };
    for url in ["http://host:7070", "http://10.0.0.1:7070", "http://localhost.example:7070"] {
        assert!(refused(&with(url)).contains("never sent in the clear"), "{url}");
    }
    for url in ["https://host:7070", "http://localhost:7070", "http://127.0.0.1:7070", "http://[::1]:7070"] {
        assert!(with(url).uri().is_ok(), "{url}");
    }
    let certified = Endpoint { ca: Some(PathBuf::from("ca.pem")), ..Endpoint::open("http://127.0.0.1:7070") };
    assert!(refused(&certified).contains("use https://"));
}

#[test]
fn a_token_is_checked_and_not_shown() {
    let token = Token::new("m4r_abc\n").unwrap();
    assert_eq!(format!("{token:?} {:?}", Bearer::new(Some(&token))), "Token(..) Bearer(Some(Token(..)))");
    for text in ["", " \n", "two words", "two\nlines", "ünicode"] {
        assert!(Token::new(text).is_none(), "{text:?}");
    }
}

#[test]
fn an_answer_is_told_from_trouble_on_the_way() {
    let endpoint = Endpoint::open("https://host:7070");
    let explain = |code, words: &str| endpoint.explain(&Status::new(code, words));
    let away = explain(Code::Unavailable, "the coordinator is stopping");
    assert!(matches!(away, EndpointError::Unreachable { .. }) && away.may_pass(), "{away}");
    let answer = explain(Code::NotFound, "there is no job x");
    assert!(matches!(answer, EndpointError::Answer { code: Code::NotFound, .. }), "{answer:?}");
    assert_eq!(answer.to_string(), "there is no job x");
    assert!(!answer.may_pass());
    assert!(matches!(explain(Code::Unauthenticated, "who?"), EndpointError::NotKnown { .. }));
    assert!(matches!(explain(Code::PermissionDenied, "no"), EndpointError::NotAllowed { .. }));
}
