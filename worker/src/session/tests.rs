#![allow(clippy::unwrap_used)]

use proto::{Committed, LeaseId};
use tokio::net::TcpListener;

use super::*;

fn word(shard: u32) -> FromWorker {
    FromWorker::Committed { lease: LeaseId(1), committed: Committed { shard, ..Committed::default() } }
}

#[tokio::test]
async fn a_stop_is_seen_while_nobody_takes_a_word() {
    let (to, mut from) = mpsc::channel(1);
    let stop = CancellationToken::new();
    assert!(say(&to, word(0), &stop).await.is_none(), "there is room");
    let began = Instant::now();
    let later = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later.cancel();
    });
    assert!(matches!(say(&to, word(1), &stop).await, Some(End::Over)));
    assert!(began.elapsed() < FAREWELL + Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(from.recv().await, Some(word(0)));
    // One that is taken goes out, also while the worker leaves.
    assert!(say(&to, word(2), &stop).await.is_none());
    assert_eq!(from.recv().await, Some(word(2)));
    drop(from);
    assert!(matches!(say(&to, word(3), &stop).await, Some(End::Broken(_))));
}

/// A coordinator that hangs takes ten seconds of every attempt.
#[tokio::test]
async fn patience_counts_the_time_of_attempts() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
        }
    });
    let patience = Duration::from_secs(1);
    let options = Options {
        coordinator: Endpoint::open(url),
        name: "w".to_owned(),
        device: "cpu".to_owned(),
        threads: 1,
        spool: std::env::temp_dir(),
        patience,
        decoder: DecoderCommand { program: "none".into(), args: Vec::new() },
        peers: None,
        job: None,
        observer: crate::Observer::default(),
    };
    let began = Instant::now();
    let ended = run(|| Device::cpu(1), options, CancellationToken::new()).await;
    let took = began.elapsed();
    assert!(matches!(ended, Err(Error::Unreachable { .. })), "{ended:?}");
    assert!(took >= patience && took < 2 * REGISTRATION, "it tried again after its patience had ended: {took:?}");
}
