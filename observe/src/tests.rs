#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;

#[derive(Default)]
struct Process {
    ready: AtomicBool,
}

#[async_trait]
impl Watched for Process {
    async fn live(&self) -> Result<(), String> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) { Ok(()) } else { Err("no coordinator yet".to_owned()) }
    }

    async fn figures(&self) -> String {
        figures().page("worker", "1.2.3", |registry| {
            let held: Gauge = Gauge::default();
            held.set(7);
            registry.register("shards_held", "Shards in hand", held);
        })
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates() {
    let file = std::env::temp_dir().join(format!("mllm4rec-observe-{}.pem", std::process::id()));
    assert_eq!(certificate::end(&file), None);
    let key = rcgen::KeyPair::generate().unwrap();
    let until = |year| {
        let mut params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    for (pem, end) in [
        (String::new(), None),
        ("no certificate".to_owned(), None),
        (damaged, None),
        (until(2031), Some(1_924_992_000)),
        (key.serialize_pem() + &until(2040) + &until(2031) + &until(2035), Some(1_924_992_000)),
    ] {
        std::fs::write(&file, &pem).unwrap();
        assert_eq!(certificate::end(&file), end, "{pem}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn a_door_tells_health_and_figures_and_nothing_else() {
    let process = Arc::new(Process::default());
    let stop = CancellationToken::new();
    let door = Door::open(([127, 0, 0, 1], 0).into(), process.clone(), stop.clone()).await.unwrap();
    let asked = |request: &'static str| ask(door.address(), request);
    assert!(asked("GET /livez").await.starts_with("HTTP/1.1 200"));
    let waiting = asked("GET /readyz").await;
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("no coordinator yet\n"), "{waiting}");
    process.ready.store(true, Ordering::Relaxed);
    assert!(asked("GET /readyz").await.starts_with("HTTP/1.1 200"));

    figures().store_call("write", "ok");
    figures().rows_put_aside("no number", 3);
    figures().step_seconds.observe(0.5);
    let page = asked("GET /metrics").await;
    assert!(!page.contains("certificate"), "{page}");
    for line in [
        "mllm4rec_store_requests_total{op=\"write\",code=\"ok\"} 1",
        "mllm4rec_bad_rows_total{reason=\"no number\"} 3",
        "mllm4rec_step_seconds_count 1",
        "mllm4rec_build_info{version=\"1.2.3\",role=\"worker\"} 1",
        "mllm4rec_shards_held 7",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(asked("POST /livez").await.starts_with("HTTP/1.1 405"));
    assert!(asked("GET /").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
}
