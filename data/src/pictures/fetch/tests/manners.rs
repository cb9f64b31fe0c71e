use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::server::{Server, Step, answer, ok, picture, redirect, status};
use super::{FakeNames, FetchOptions, fetch, options, reasons, store};
use crate::pictures::fetch::hosts::Hosts;
use crate::pictures::fetch::patience::{backoff, retry_after};

/// Options that allow these names at the server's port.
fn naming(server: &Server, hosts: &[&str]) -> FetchOptions {
    let allow_hosts = hosts.iter().map(|host| format!("{host}:{}", server.port)).collect();
    FetchOptions { allow_hosts, ..options(server) }
}

#[tokio::test]
async fn no_more_are_asked_for_at_once_than_allowed() {
    let server =
        Server::start(|request| [vec![Step::Wait(Duration::from_millis(10))], ok(&picture(&request.path))].concat());
    let server = server.await;
    let hosts = ["a.test", "b.test", "c.test", "d.test"];
    let options = FetchOptions { concurrent: 5, per_host: 2, ..naming(&server, &hosts) };
    let url = |i: usize| format!("http://{}:{}/{i}", hosts[i % 4], server.port);
    let names = FakeNames::new(|_: &str| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let records = names.fetch(&store(), &(0..60).map(url).collect::<Vec<_>>(), &options).await;
    assert!(reasons(&records).iter().all(|reason| reason == "ok"));
    assert_eq!(server.requests().len(), 60);
    assert!(server.most("") <= 5 && server.most("") > 2, "{} at once", server.most(""));
    for host in hosts {
        assert!(server.most(host) <= 2, "{} of {host} at once", server.most(host));
    }
}

/// The limit of a host holds for those who come by a redirect, too.
#[tokio::test]
async fn redirects_count_for_the_host_that_they_lead_to() {
    let server = Server::start(|request| match request.host.as_str() {
        "cdn.test" => [vec![Step::Wait(Duration::from_millis(10))], ok(&picture(&request.path))].concat(),
        _ => {
            let port = request.head.split("test:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
            redirect(&format!("http://cdn.test:{port}{}", request.path))
        }
    });
    let server = server.await;
    let hosts = ["a.test", "b.test", "c.test", "cdn.test"];
    let options = FetchOptions { concurrent: 8, per_host: 2, ..naming(&server, &hosts) };
    let url = |i: usize| format!("http://{}:{}/{i}", hosts[i % 3], server.port);
    let names = FakeNames::new(|_: &str| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let records = names.fetch(&store(), &(0..18).map(url).collect::<Vec<_>>(), &options).await;
    assert!(reasons(&records).iter().all(|reason| reason == "ok"));
    assert!(server.most("cdn.test") <= 2, "{} at once", server.most("cdn.test"));
}

#[tokio::test]
async fn a_busy_server_is_given_its_time() {
    let server = Server::start(|request| match (request.path.as_str(), request.nth) {
        ("/seconds", 0) => answer("429 Too Many Requests", "retry-after: 3600\r\ncontent-length: 0\r\n", b""),
        ("/date", 0) => {
            let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
            answer("503 Service Unavailable", &format!("retry-after: {later}\r\ncontent-length: 0\r\n"), b"")
        }
        ("/plain", 0) => status("429 Too Many Requests"),
        _ => ok(&picture(&request.path)),
    });
    let server = server.await;
    // An hour is more than the 100 ms that a server may ask for here.
    let urls = ["/seconds", "/date", "/plain"].map(|path| server.url(path));
    let options = FetchOptions { concurrent: 1, ..options(&server) };
    let records = fetch(&store(), &urls, &options).await;
    assert_eq!(reasons(&records), ["ok", "ok", "ok"]);
    for path in ["/seconds", "/date"] {
        let times: Vec<Instant> = server.requests().iter().filter(|r| r.path == path).map(|r| r.at).collect();
        assert!(times.len() == 2 && times[1] - times[0] >= Duration::from_millis(95), "{path}");
    }
    assert_eq!(server.asked("/plain"), 2);
}

#[tokio::test]
async fn a_paused_host_holds_up_no_other() {
    let hosts = Hosts::new(1, 1, 1);
    let (paused, other) = (hosts.get("paused.test"), hosts.get("other.test"));
    paused.pause(Duration::from_millis(60));
    paused.pause(Duration::from_millis(1));
    let began = Instant::now();
    let wait = async {
        drop(hosts.turn(&paused).await);
        began.elapsed()
    };
    let pass = async {
        drop(hosts.turn(&other).await);
        began.elapsed()
    };
    let (waited, passed) = tokio::join!(wait, pass);
    other.pause(Duration::MAX);
    assert!(waited >= Duration::from_millis(60) && passed < waited, "{waited:?} {passed:?}");
}

/// Else pictures would pile up before a store that is slower than the network.
#[tokio::test]
async fn a_picture_that_is_not_stored_yet_keeps_its_place_but_not_its_host() {
    let hosts = Hosts::new(2, 1, 1);
    let host = hosts.get("a.test");
    let [first, second] = [hosts.turn(&host).await.into_place(), hosts.turn(&host).await.into_place()];
    let third = tokio::time::timeout(Duration::from_millis(20), hosts.turn(&host)).await;
    assert!(third.is_err());
    drop(first);
    hosts.turn(&host).await;
    drop(second);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_left_alone() {
    let server = Server::start(|request| ok(&picture(&request.path))).await;
    let names = FakeNames::new(|host: &str| match host {
        "dead.test" => vec![],
        _ => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    });
    let hosts = ["dead.test", "fine.test"];
    let options = FetchOptions { attempts: 2, per_host: 1, host_failures: 6, ..naming(&server, &hosts) };
    let url = |i: usize| format!("http://{}:{}/{i}", hosts[i % 2], server.port);
    let urls: Vec<_> = (0..20).map(url).collect();
    let store = store();
    let records = names.fetch(&store, &urls, &options).await;
    for (i, record) in records.iter().enumerate() {
        let expected = if i % 2 == 1 { ("ok", 1) } else { ("unreachable", if i < 6 { 2 } else { 0 }) };
        assert_eq!((&*record.outcome.as_str(), record.attempts), expected, "{i}");
    }
    assert_eq!(names.asked.lock().unwrap().iter().filter(|host| *host == "dead.test").count(), 6);
}

#[tokio::test]
async fn a_host_that_answers_now_and_then_is_not_given_up() {
    let server = Server::start(|request| ok(&picture(&request.path))).await;
    let turn = AtomicUsize::new(0);
    let names = FakeNames::new(move |_: &str| match turn.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => vec![],
        _ => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    });
    let options = FetchOptions { per_host: 1, host_failures: 3, ..naming(&server, &["shaky.test"]) };
    let urls: Vec<_> = (0..9).map(|i| format!("http://shaky.test:{}/{i}", server.port)).collect();
    assert_eq!(reasons(&names.fetch(&store(), &urls, &options).await), ["ok"; 9]);
    assert!(names.asked.lock().unwrap().len() > 9);
}

/// An address that is refused says nothing about whether somebody is there.
#[tokio::test]
async fn a_refused_host_is_refused_to_the_end() {
    let server = Server::start(|_| ok(&picture(""))).await;
    let names = FakeNames::new(|_: &str| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let urls: Vec<_> = (0..9).map(|i| format!("http://inner.test:{}/{i}", server.port)).collect();
    let options = FetchOptions { host_failures: 3, ..options(&server) };
    let records = names.fetch(&store(), &urls, &options).await;
    assert!(records.iter().all(|r| r.outcome.as_str() == "refused_address" && r.attempts == 1), "{records:?}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_server_says_when_to_come_again() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let cases = [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("18446744073709551615", Some(u64::MAX)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("99999999999999999999999", None),
        ("", None),
    ];
    for (text, seconds) in cases {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
    let binary = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").unwrap())]);
    assert_eq!(retry_after(&binary, now), None);
}

#[test]
fn pauses_double_and_differ_by_url() {
    let [first, longest] = [Duration::from_millis(500), Duration::from_secs(30)];
    let pause = |url: &str, failures| backoff(url, failures, first, longest);
    for failures in 1..40 {
        let whole = first.saturating_mul(1 << (failures - 1).min(10)).min(longest);
        let pauses: BTreeSet<_> = (0..50).map(|i| pause(&format!("http://x/{i}"), failures)).collect();
        assert!(pauses.len() == 50 && pauses.iter().all(|p| (whole / 2..=whole).contains(p)), "{failures}: {pauses:?}");
    }
    assert_eq!(pause("http://x/1", 2), pause("http://x/1", 2));
    assert!(backoff("x", u32::MAX, Duration::MAX, Duration::MAX) <= Duration::MAX);
}
