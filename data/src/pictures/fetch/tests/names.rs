use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Server, ok, picture, redirect};
use super::{FakeNames, FetchOptions, fetch, options, reasons, store};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_name_is_only_as_good_as_each_of_its_addresses() {
    let server = Server::start(|_| ok(&picture("a secret"))).await;
    let names = FakeNames::new(|host: &str| match host {
        "loopback.test" => vec![LOOPBACK],
        "metadata.test" => vec![ip("169.254.169.254")],
        "v6.test" => vec![ip("::1")],
        "mapped.test" => vec![ip("::ffff:10.0.0.1")],
        "mixed.test" => vec![ip("8.8.8.8"), ip("10.0.0.1")],
        "nat64.test" => vec![ip("64:ff9b::7f00:1")],
        _ => vec![],
    });
    let hosts =
        ["loopback.test", "metadata.test", "v6.test", "mapped.test", "mixed.test", "nat64.test", "nowhere.test"];
    let urls = hosts.map(|host| format!("http://{host}:{}/a.jpg", server.port));
    let store = store();
    let records = names.fetch(&store, &urls, &options(&server)).await;
    let expected = [["refused_address"; 6].as_slice(), &["unreachable"]].concat();
    assert_eq!(reasons(&records), expected);
    let refused = records[4].outcome.to_string();
    assert!(refused.starts_with("mixed.test is at 10.0.0.1, which is a private address;"), "{refused}");
    assert!(refused.ends_with("captions.fetch_allow_hosts"), "{refused}");
    assert_eq!(records[6].outcome.to_string(), "no connection: no such name");
    assert!(server.requests().is_empty());
    // Looked at again, since the name may have moved: by a later run, but not by this one.
    assert_eq!((records[0].attempts, records[6].attempts), (1, 4));
    assert!(!records[0].outcome.is_final());
}

/// A name that is private from its second answer on: there is no second question.
#[tokio::test]
async fn a_connection_goes_to_the_addresses_that_were_checked() {
    let server = Server::start(|request| ok(&picture(&request.path))).await;
    let turn = AtomicUsize::new(0);
    let names = FakeNames::new(move |_: &str| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => vec![LOOPBACK],
        _ => vec![ip("10.0.0.1")],
    });
    let allow_hosts = vec![format!("rebind.test:{}", server.port)];
    let options = FetchOptions { allow_hosts, ..options(&server) };
    let url = format!("http://rebind.test:{}/a.jpg", server.port);
    assert_eq!(reasons(&names.fetch(&store(), &[url], &options).await), ["ok"]);
    assert_eq!((*names.asked.lock().unwrap()).as_slice(), ["rebind.test"]);
    assert_eq!(server.requests()[0].host, "rebind.test");
}

#[tokio::test]
async fn an_allowed_name_is_allowed_on_its_port_and_for_itself_only() {
    let inner = Server::start(|_| ok(&picture("a secret"))).await;
    let inner_port = inner.port;
    let server = Server::start(move |request| match request.path.as_str() {
        "/to-other-name" => redirect(&format!("http://evil.test:{inner_port}/")),
        "/to-other-port" => redirect(&format!("http://images.test:{inner_port}/")),
        _ => ok(&picture("")),
    })
    .await;
    let names = FakeNames::new(|_: &str| vec![LOOPBACK]);
    let options = FetchOptions { allow_hosts: vec![format!("images.test:{}", server.port)], ..options(&server) };
    let at = |path: &str| format!("http://images.test:{}{path}", server.port);
    let urls = [at("/a.jpg"), at("/to-other-name"), at("/to-other-port"), format!("http://images.test:{inner_port}/")];
    let records = names.fetch(&store(), &urls, &options).await;
    assert_eq!(reasons(&records), ["ok", "refused_address", "refused_address", "refused_address"]);
    assert!(inner.requests().is_empty());
}

#[tokio::test]
async fn the_system_knows_localhost_as_private() {
    let server = Server::start(|_| ok(&picture(""))).await;
    let urls = ["localhost", "localhost.", "LOCALHOST"].map(|host| format!("http://{host}:{}/a.jpg", server.port));
    let records = fetch(&store(), &urls, &FetchOptions { attempts: 1, ..options(&server) }).await;
    // A system that does not know the name with the dot has no address for it, which is as good.
    assert_eq!(records[0].outcome.as_str(), "refused_address");
    assert!(records.iter().all(|r| matches!(&*r.outcome.as_str(), "refused_address" | "unreachable")), "{records:?}");
    assert!(server.requests().is_empty());
}
