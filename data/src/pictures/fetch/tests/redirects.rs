use super::server::{Request, Server, answer, ok, picture, redirect, status};
use super::{FetchOptions, fetch, options, reasons, store};
use crate::pictures::fetch::FetchOutcome;

/// `/3` leads to `/2`, that to `/1`, that to `/0`, which is a picture; the others lead where they should not.
fn lead(request: &Request, other_port: u16) -> Vec<super::server::Step> {
    match request.path.as_str() {
        "/0" => ok(&picture("arrived")),
        "/relative/deep" => redirect("../0"),
        "/self" => redirect("/self"),
        "/self-by-fragment" => redirect("/self-by-fragment#again"),
        "/ping" => redirect("/pong"),
        "/pong" => redirect("/ping"),
        "/metadata" => redirect("http://169.254.169.254/latest/meta-data/"),
        "/metadata-in-hex" => redirect("//0xa9fea9fe/"),
        "/other-port" => redirect(&format!("http://127.0.0.1:{other_port}/secret")),
        "/v6" => redirect("http://[::1]/"),
        "/late-to-v6" => redirect("/v6"),
        "/file" => redirect("file:///etc/passwd"),
        "/ftp" => redirect("ftp://127.0.0.1/x.jpg"),
        "/password" => redirect(&format!("http://user:secret@127.0.0.1:{}/0", request.head.len())),
        "/nowhere" => status("302 Found"),
        "/nonsense" => redirect("http://[nonsense"),
        "/binary" => answer("301 Moved", "location: \u{ff}\u{fe}\r\ncontent-length: 0\r\n", b""),
        "/permanent" => answer("308 Permanent Redirect", "location: /0\r\ncontent-length: 0\r\n", b""),
        "/to-missing" => redirect("/missing"),
        "/missing" => status("404 Not Found"),
        number => {
            number[1..].parse::<u32>().map_or_else(|_| status("404 Not Found"), |n| redirect(&format!("/{}", n - 1)))
        }
    }
}

const EXPECTED: [(&str, &str); 20] = [
    ("/1", "ok"),
    ("/3", "ok"),
    ("/relative/deep", "ok"),
    ("/permanent", "ok"),
    ("/4", "redirects"),
    ("/9", "redirects"),
    ("/self", "redirects"),
    ("/self-by-fragment", "redirects"),
    ("/ping", "redirects"),
    ("/nowhere", "redirects"),
    ("/nonsense", "redirects"),
    ("/metadata", "refused_address"),
    ("/metadata-in-hex", "refused_address"),
    ("/other-port", "refused_address"),
    ("/v6", "refused_address"),
    ("/late-to-v6", "refused_address"),
    ("/file", "bad_url"),
    ("/ftp", "bad_url"),
    ("/password", "bad_url"),
    ("/to-missing", "not_found"),
];

#[tokio::test]
async fn every_redirect_is_checked_before_it_is_followed() {
    let other = Server::start(|_| ok(&picture("a secret"))).await;
    let other_port = other.port;
    let (server, store) = (Server::start(move |request| lead(request, other_port)).await, store());
    let urls = EXPECTED.map(|(path, _)| server.url(path));
    let records = fetch(&store, &urls, &options(&server)).await;
    for ((path, reason), record) in EXPECTED.iter().zip(&records) {
        assert_eq!(record.outcome.as_str(), *reason, "{path}: {}", record.outcome);
        assert_eq!(record.attempts, 1, "{path}");
    }
    assert!(other.requests().is_empty());
    // /4 follows three redirects and stops at the fourth.
    assert_eq!((server.asked("/self"), server.asked("/9"), server.asked("/5")), (1, 1, 0));
    assert!(server.asked("/6") == 1 && !server.requests().iter().any(|r| r.head.contains("secret")));
    let FetchOutcome::Failed(refused) = &records[11].outcome else { panic!("{:?}", records[11]) };
    assert!(refused.detail.starts_with("after a redirect: 169.254.169.254 is a link-local address"), "{refused:?}");
}

#[tokio::test]
async fn no_redirect_is_followed_where_none_is_allowed() {
    let (server, store) = (Server::start(|request| lead(request, 1)).await, store());
    let options = FetchOptions { redirects: 0, ..options(&server) };
    assert_eq!(reasons(&fetch(&store, &[server.url("/1"), server.url("/0")], &options).await), ["redirects", "ok"]);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_location_that_is_not_text_is_no_reason_to_panic() {
    let (server, store) = (Server::start(|request| lead(request, 1)).await, store());
    let records = fetch(&store, &[server.url("/binary")], &options(&server)).await;
    assert_ne!(reasons(&records), ["ok"]);
}
