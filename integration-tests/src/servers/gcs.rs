//! A fake of Google Cloud Storage: the calls of its XML API that our client makes, one bucket, one mutex.
//!
//! No public fake honours `x-goog-if-generation-match`, on which every commit rests. This one does what Google documents of
//! it; whether Google does so too, only Google's servers can tell.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use hyper::{Method, Request, Response};
use url::Url;

use crate::http::{self, Answer, answer};

/// A key that lets anybody in and asks nobody for a token.
pub(super) const ANYBODY: &str =
    r#"{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;
/// Objects of one page of a listing.
const PAGE: usize = 1000;

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    generation: u64,
    written: SystemTime,
}

impl Object {
    fn etag(&self) -> String {
        format!("\"g{}\"", self.generation)
    }
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<String, Object>,
    generations: u64,
}

/// Starts a server with one empty bucket.
pub(super) fn start(bucket: &'static str) -> SocketAddr {
    let objects = Arc::new(Mutex::new(Objects::default()));
    http::serve(move |request| {
        let objects = objects.clone();
        Box::pin(async move {
            let mut objects = objects.lock().expect("no request panics");
            Answer::Whole(objects.obey(bucket, &request))
        })
    })
}

fn error(status: u16, code: &str) -> Response<Bytes> {
    answer(status, format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"))
}

impl Objects {
    fn obey(&mut self, bucket: &str, request: &Request<Bytes>) -> Response<Bytes> {
        let url = Url::parse(&format!("http://gcs{}", request.uri())).expect("a path and a query make a URL");
        let (name, key) = url.path()[1..].split_once('/').unwrap_or((&url.path()[1..], ""));
        if name != bucket {
            return error(404, "NoSuchBucket");
        }
        let key = decoded(key);
        match *request.method() {
            Method::GET if key.is_empty() => self.list(&url),
            Method::PUT => self.put(key, request),
            Method::GET | Method::HEAD => self.get(&key, request),
            Method::DELETE if self.by_key.remove(&key).is_some() => answer(204, ""),
            Method::DELETE => error(404, "NoSuchKey"),
            _ => error(405, "MethodNotAllowed"),
        }
    }

    fn put(&mut self, key: String, request: &Request<Bytes>) -> Response<Bytes> {
        let wanted = text(request.headers(), "x-goog-if-generation-match");
        let there = self.by_key.get(&key).map_or(0, |object| object.generation);
        if wanted.is_some_and(|wanted| wanted != there.to_string()) {
            return error(412, "PreconditionFailed");
        }
        self.generations += 1;
        let object = Object { bytes: request.body().clone(), generation: self.generations, written: SystemTime::now() };
        let mut response = answer(200, "");
        described(response.headers_mut(), &object);
        self.by_key.insert(key, object);
        response
    }

    fn get(&self, key: &str, request: &Request<Bytes>) -> Response<Bytes> {
        let Some(object) = self.by_key.get(key) else { return error(404, "NoSuchKey") };
        let headers = request.headers();
        if text(headers, IF_MATCH.as_str()).is_some_and(|etag| etag != object.etag()) {
            return error(412, "PreconditionFailed");
        }
        if text(headers, IF_NONE_MATCH.as_str()).is_some_and(|etag| etag == object.etag()) {
            return answer(304, "");
        }
        let len = object.bytes.len();
        let mut response = match text(headers, RANGE.as_str()).map(|range| span(range, len)) {
            None => answer(200, object.bytes.clone()),
            Some(None) => return error(416, "InvalidRange"),
            Some(Some((first, last))) => {
                let mut part = answer(206, object.bytes.slice(first..=last));
                insert(part.headers_mut(), CONTENT_RANGE.as_str(), &format!("bytes {first}-{last}/{len}"));
                part
            }
        };
        described(response.headers_mut(), object);
        if *request.method() == Method::HEAD {
            insert(response.headers_mut(), CONTENT_LENGTH.as_str(), &len.to_string());
            *response.body_mut() = Bytes::new();
        }
        response
    }

    fn list(&self, url: &Url) -> Response<Bytes> {
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, after) = (get("prefix"), get("continuation-token").max(get("start-after")));
        let page = get("max-keys").parse().unwrap_or(PAGE).min(PAGE);
        let keys = self.by_key.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let found: Vec<_> = keys.filter(|(key, _)| key.as_str() > after).take(page + 1).collect();
        let mut xml = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>".to_owned();
        for (key, object) in found.iter().take(page) {
            let _ = write!(
                xml,
                "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag></Contents>",
                escaped(key),
                object.bytes.len(),
                escaped(&object.etag()),
            );
        }
        if found.len() > page {
            let token = escaped(found[page - 1].0);
            let _ =
                write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>");
        }
        answer(200, xml + "</ListBucketResult>")
    }
}

fn described(headers: &mut HeaderMap, object: &Object) {
    insert(headers, ETAG.as_str(), &object.etag());
    insert(headers, "x-goog-generation", &object.generation.to_string());
    insert(headers, LAST_MODIFIED.as_str(), &httpdate::fmt_http_date(object.written));
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    let name: hyper::header::HeaderName = name.parse().expect("it is the name of a header");
    headers.insert(name, value.parse().expect("it is the value of a header"));
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first and the last byte that a range means: `bytes=3-7`, `bytes=3-` or `bytes=-4`.
fn span(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(len.checked_sub(1)?)),
        (Ok(first), Err(_)) => (first, len.checked_sub(1)?),
        (Err(_), Ok(count)) => (len.saturating_sub(count), len.checked_sub(1)?),
        _ => return None,
    };
    (first <= last).then_some((first, last))
}

/// A path without its percent signs.
fn decoded(path: &str) -> String {
    // What stands behind the question mark of a form is decoded in this way; only plus signs mean something else there.
    let form = format!("p={}", path.replace('+', "%2B"));
    url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
