use std::process::Command;
use std::time::Duration;

use super::server::{Request, Server, Step, answer, ok, picture, status};
use super::{fetch, options, reasons, store};
use crate::artifact::Digest;
use crate::pictures::fetch::image::looks_like_image;
use crate::pictures::fetch::{FetchOutcome, picture_path};

const LIMIT: usize = 10_000;

/// Path, how it ends, and how often it is asked for, with three tries.
const EXPECTED: [(&str, &str, usize); 31] = [
    ("/fine", "ok", 1),
    ("/no-length", "ok", 1),
    ("/chunked", "ok", 1),
    ("/called-text", "ok", 1),
    ("/identity", "ok", 1),
    ("/as-large-as-may-be", "ok", 1),
    ("/too-large", "too_large", 1),
    ("/announces-too-much", "too_large", 1),
    ("/endless", "too_large", 1),
    ("/endless-chunks", "too_large", 1),
    ("/shorter-than-announced", "broken_off", 3),
    ("/chunks-break-off", "broken_off", 3),
    ("/absurd-length", "broken_off", 3),
    ("/two-lengths", "broken_off", 3),
    ("/closes-at-once", "broken_off", 3),
    ("/not-http", "broken_off", 3),
    ("/page", "not_an_image", 1),
    ("/endless-page", "not_an_image", 1),
    ("/empty", "not_an_image", 1),
    ("/half-a-magic", "not_an_image", 1),
    ("/no-content", "http_204", 1),
    ("/a-part", "http_206", 1),
    ("/gzip", "encoded", 1),
    ("/missing", "not_found", 1),
    ("/gone", "not_found", 1),
    ("/forbidden", "http_403", 1),
    ("/teapot", "http_418", 1),
    ("/always-500", "http_500", 3),
    ("/too-early-once", "ok", 2),
    ("/500-twice", "ok", 3),
    ("/broken-once", "ok", 2),
];

fn chunked(chunks: &[u8]) -> Vec<Step> {
    answer("200 OK", "transfer-encoding: chunked\r\n", chunks)
}

fn misbehave(request: &Request) -> Vec<Step> {
    let fine = picture(&request.path);
    let with = |headers: &str| answer("200 OK", headers, &fine);
    let size = fine.len();
    let endless = |head: Vec<Step>, more: &[u8]| [head, vec![Step::Forever(more.to_vec(), Duration::ZERO)]].concat();
    match request.path.as_str() {
        "/fine" => ok(&fine),
        "/no-length" => with("connection: close\r\n"),
        "/chunked" => chunked(&[format!("{size:x}\r\n").as_bytes(), &fine, b"\r\n0\r\n\r\n"].concat()),
        "/called-text" => with(&format!("content-type: text/html\r\ncontent-length: {size}\r\n")),
        "/identity" => with(&format!("content-encoding: Identity\r\ncontent-length: {size}\r\n")),
        "/as-large-as-may-be" => ok(&[picture(""), vec![0; LIMIT - picture("").len()]].concat()),
        "/too-large" => ok(&[picture(""), vec![0; LIMIT + 1 - picture("").len()]].concat()),
        "/announces-too-much" => [answer("200 OK", "content-length: 10001\r\n", b""), vec![Step::Hang]].concat(),
        "/endless" => endless(with(""), &[7; 1000]),
        "/endless-chunks" => endless(
            chunked(&[b"14\r\n", &fine[..20], b"\r\n"].concat()),
            &[b"200\r\n".as_slice(), &[7; 0x200], b"\r\n"].concat(),
        ),
        "/shorter-than-announced" => with(&format!("content-length: {}\r\n", size + 1)),
        "/chunks-break-off" => chunked(&[b"ff\r\n", fine.as_slice()].concat()),
        "/absurd-length" => with("content-length: 99999999999999999999999\r\n"),
        "/two-lengths" => with(&format!("content-length: {size}\r\ncontent-length: 4\r\n")),
        "/closes-at-once" => vec![],
        "/not-http" => vec![Step::Send(b"220 mail.example ESMTP\r\n".to_vec())],
        "/page" => ok(b"<!DOCTYPE html><title>Not found</title>"),
        "/endless-page" => endless(with_page(), b"<br>"),
        "/empty" => ok(b""),
        "/half-a-magic" => ok(&[0xff, 0xd8]),
        "/no-content" => answer("204 No Content", "", b""),
        "/a-part" => answer("206 Partial Content", &format!("content-length: {size}\r\n"), &fine),
        "/gzip" => with(&format!("content-encoding: gzip\r\ncontent-length: {size}\r\n")),
        "/missing" => status("404 Not Found"),
        "/gone" => status("410 Gone"),
        "/forbidden" => status("403 Forbidden"),
        "/teapot" => status("418 I'm a teapot"),
        "/too-early-once" if request.nth == 0 => status("425 Too Early"),
        "/500-twice" if request.nth < 2 => status("500 Internal Server Error"),
        "/always-500" => status("500 Internal Server Error"),
        "/broken-once" if request.nth == 0 => vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec())],
        _ => ok(&fine),
    }
}

fn with_page() -> Vec<Step> {
    answer("200 OK", "content-type: image/png\r\n", b"<!DOCTYPE html>")
}

#[tokio::test]
async fn each_answer_has_its_outcome() {
    let (server, store) = (Server::start(misbehave).await, store());
    let options = super::FetchOptions { attempts: 3, per_host: 8, ..options(&server) };
    let urls = EXPECTED.map(|(path, _, _)| server.url(path));
    let records = fetch(&store, &urls, &options).await;
    for ((path, reason, asked), record) in EXPECTED.iter().zip(&records) {
        assert_eq!(record.outcome.as_str(), *reason, "{path}: {}", record.outcome);
        assert_eq!((server.asked(path), record.attempts as usize), (*asked, *asked), "{path}");
        assert_eq!(record.url, server.url(path));
        let again = matches!(*reason, "broken_off" | "http_500");
        assert_eq!(record.outcome.is_final(), !again, "{path}");
        if let FetchOutcome::Ok { sha256, bytes } = &record.outcome {
            let stored = store.get(&picture_path(sha256)).await.unwrap();
            assert_eq!((Digest::of_bytes(&stored), stored.len() as u64), (sha256.clone(), *bytes), "{path}");
        }
    }
    let head = server.requests()[0].head.to_ascii_lowercase();
    assert!(head.contains("accept-encoding: identity\r\n") && head.contains("user-agent: mllm4rec/"), "{head}");
    assert!(!head.contains("cookie") && !head.contains("authorization") && !head.contains("referer"), "{head}");
}

/// What follows a body is no part of it, nor of the next answer on the same connection.
#[tokio::test]
async fn a_body_ends_where_its_length_says() {
    let server = Server::start(|request| {
        let [body, surplus] = [picture(&request.path), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nlie".to_vec()];
        let mut steps = ok(&body);
        steps.extend([Step::Send(surplus), Step::Keep]);
        steps
    });
    let (server, store) = (server.await, store());
    let options = super::FetchOptions { concurrent: 1, ..options(&server) };
    let urls = ["/a", "/b", "/c", "/d"].map(|path| server.url(path));
    for (record, path) in fetch(&store, &urls, &options).await.iter().zip(["/a", "/b", "/c", "/d"]) {
        let body = picture(path);
        assert_eq!(record.outcome, FetchOutcome::Ok { sha256: Digest::of_bytes(&body), bytes: body.len() as u64 });
    }
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_not_waited_for() {
    let server = Server::start(|request| match request.path.as_str() {
        "/never" => vec![Step::Hang],
        "/half" => [answer("200 OK", "content-length: 500\r\n", &picture("")), vec![Step::Hang]].concat(),
        "/drip" => {
            let head = answer("200 OK", "content-length: 5000\r\n", &picture(""));
            [head, vec![Step::Forever(vec![1], Duration::from_millis(5))]].concat()
        }
        _ => [vec![Step::Forever(b"x-more: header\r\n".to_vec(), Duration::from_millis(5))]].concat(),
    });
    let (server, store) = (server.await, store());
    let picture_time = Duration::from_millis(250);
    let options = super::FetchOptions { attempts: 2, per_host: 8, picture_time, ..options(&server) };
    let urls = ["/never", "/half", "/drip"].map(|path| server.url(path));
    let records = fetch(&store, &urls, &options).await;
    assert_eq!(reasons(&records), ["timeout"; 3]);
    assert!(records.iter().all(|r| r.attempts == 2 && !r.outcome.is_final()));
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn nobody_there_and_no_tls_there_are_unreachable() {
    let server = Server::start(|_| ok(&picture("")));
    let (server, store) = (server.await, store());
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let allow_hosts = vec!["127.0.0.1".to_owned()];
    let options = super::FetchOptions { attempts: 2, allow_hosts, ..options(&server) };
    let urls = [format!("http://{closed}/a.jpg"), server.url("/a.jpg").replace("http:", "https:")];
    let records = fetch(&store, &urls, &options).await;
    assert_eq!(reasons(&records), ["unreachable"; 2]);
    assert!(records.iter().all(|r| r.attempts == 2), "{records:?}");
}

/// Runs a test of this file again, with a proxy in the environment at which nobody is.
#[test]
fn a_proxy_in_the_environment_is_not_used() {
    let name = "pictures::fetch::tests::answers::each_answer_has_its_outcome";
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", name]).env_remove("NO_PROXY").env_remove("no_proxy");
    for key in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        run.env(key, "http://127.0.0.1:9");
    }
    let output = run.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn pictures_are_known_by_their_first_bytes() {
    let bmp = |header: u8| [b"BM".as_slice(), &[0; 12], &[header, 0, 0, 0]].concat();
    let pictures = [
        vec![0xff, 0xd8, 0xff],
        b"\x89PNG\r\n\x1a\n".to_vec(),
        b"GIF87a".to_vec(),
        b"GIF89a".to_vec(),
        b"RIFF\x10\0\0\0WEBPVP8 ".to_vec(),
        bmp(40),
        bmp(124),
    ];
    for bytes in pictures {
        assert!(looks_like_image(&bytes), "{bytes:?}");
    }
    let others: [&[u8]; 10] = [
        b"",
        b"\xff\xd8",
        b"\x89PNG",
        b"GIF90a",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"RIFF",
        b"BM",
        b"BMW is a maker of cars and more",
        b"<svg xmlns=",
        b"%PDF-1.7",
    ];
    for bytes in others {
        assert!(!looks_like_image(bytes), "{bytes:?}");
    }
}
