#![allow(clippy::unwrap_used)]

use crate::{FailureClass, FromWorker, Grant, Invalid, JobId, LeaseId, Progress, ToWorker, pb};

fn grant() -> Grant {
    Grant {
        lease: LeaseId(7),
        job: JobId("shop-0123456789ab".into()),
        job_toml: "name = \"shop\"".into(),
        stage: "retrieve".into(),
        split: Some("test".into()),
        digest: "ab".into(),
        shards: vec![0, 2],
        of: 3,
    }
}

#[test]
fn messages_survive_the_wire() {
    let said = [
        FromWorker::Heartbeat,
        FromWorker::Progress {
            lease: LeaseId(1),
            progress: Progress { done: 2, total: 3, unit: "users".into(), note: String::new() },
        },
        FromWorker::Failed { lease: LeaseId(1), class: FailureClass::Fatal, reason: "no".into() },
    ];
    for message in said {
        assert_eq!(FromWorker::try_from(pb::WorkerMessage::from(message.clone())).unwrap(), message);
    }
    let message = ToWorker::Grant(grant());
    assert_eq!(ToWorker::try_from(pb::CoordinatorMessage::from(message.clone())).unwrap(), message);
}

#[test]
fn broken_messages_are_refused_by_field() {
    assert_eq!(FromWorker::try_from(pb::WorkerMessage { message: None }), Err(Invalid("message")));
    let failed = pb::worker_message::Message::Failed(pb::LeaseFailed { lease: 1, class: 0, reason: String::new() });
    assert_eq!(FromWorker::try_from(pb::WorkerMessage { message: Some(failed) }), Err(Invalid("class")));
    let message = ToWorker::Grant(Grant { shards: vec![3], ..grant() });
    assert_eq!(ToWorker::try_from(pb::CoordinatorMessage::from(message)), Err(Invalid("shards")));
}
