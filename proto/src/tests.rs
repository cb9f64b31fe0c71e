#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::{
    Broken, Claim, Committed, FailureClass, FromWorker, Generation, GenerationId, Grant, Info, Invalid, JobId,
    JobState, JobStatus, LeaseId, Peer, Progress, Ready, Register, ShardCounts, StageState, StageStatus, ToWorker,
    Welcome, WorkerId, WorkerStatus, pb,
};

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

fn generation() -> Generation {
    let peer =
        |lease: u64| Peer { lease: LeaseId(lease), name: "w".into(), address: "host:1".into(), certificate: vec![3] };
    Generation { lease: LeaseId(7), number: GenerationId::of(2, 1), rank: 1, members: vec![peer(6), peer(7)] }
}

#[test]
fn messages_survive_the_wire() {
    let said = [
        FromWorker::Heartbeat,
        FromWorker::Progress {
            lease: LeaseId(1),
            progress: Progress { done: 2, total: 3, unit: "users".into(), note: String::new() },
        },
        FromWorker::Register(Register {
            protocol: 3,
            build: "1".into(),
            name: "w".into(),
            threads: 4,
            device: "cpu".into(),
            term: 3,
            claims: vec![Claim {
                lease: LeaseId::of(3, 9),
                stage: "rank".into(),
                digest: "ab".into(),
                shards: vec![4, 1],
                generation: Some(GenerationId::of(3, 2)),
            }],
            job: Some("shop-0a1b".into()),
        }),
        FromWorker::Committed {
            lease: LeaseId(1),
            committed: Committed {
                shard: 2,
                rows: 3,
                took: Duration::from_millis(4),
                rejected: [("why".to_owned(), 5)].into(),
            },
        },
        FromWorker::Failed { lease: LeaseId(1), class: FailureClass::Fatal, reason: "no".into() },
        FromWorker::Ready(Ready {
            lease: LeaseId(1),
            address: "host:1".into(),
            certificate: vec![1, 2],
            step: 9,
            about: "users 7 and 9".into(),
            broken: Some(Broken {
                generation: GenerationId::of(3, 1),
                reason: "gone".into(),
                unreachable: Some(LeaseId(2)),
            }),
        }),
    ];
    for message in said {
        assert_eq!(FromWorker::try_from(pb::WorkerMessage::from(message.clone())).unwrap(), message);
    }
    let welcome = Welcome {
        worker: WorkerId(1),
        root: "s3://shop/root".into(),
        heartbeat: Duration::from_secs(1),
        term: 7,
        store_patience: Duration::from_secs(60),
        step_patience: Duration::from_secs(10),
    };
    let (lease, number) = (LeaseId(7), GenerationId::of(2, 1));
    let gang = [
        ToWorker::Generation(generation()),
        ToWorker::Regroup { lease, generation: number },
        ToWorker::Abort { lease, generation: number, reason: "a member is lost".into() },
    ];
    for message in [ToWorker::Grant(grant()), ToWorker::Welcome(welcome)].into_iter().chain(gang) {
        assert_eq!(ToWorker::try_from(pb::CoordinatorMessage::from(message.clone())).unwrap(), message);
    }
}

#[test]
fn statuses_survive_the_wire() {
    let stage = StageStatus {
        stage: "rank".into(),
        split: Some("all".into()),
        trial: Some("dropout=0.1".into()),
        digest: "ab".into(),
        state: StageState::Running,
        progress: Progress { done: 1, total: 9, unit: "users".into(), note: "n".into() },
        reused: false,
        retries: 2,
        shards: ShardCounts { all: 9, done: 1, leased: 3 },
        attempts: 6,
        oldest_lease: Duration::from_secs(5),
        rate: 2.5,
        rejected: [("why".to_owned(), 5)].into(),
        quarantined: vec![8],
        working: 3,
        members: 2,
        generations: 4,
    };
    let status = JobStatus {
        job: JobId("j".into()),
        state: JobState::Running,
        stages: vec![stage],
        workers: 2,
        reason: String::new(),
        failure: None,
        waiting: "for the store".into(),
        age: Duration::from_secs(11),
    };
    assert_eq!(JobStatus::try_from(pb::JobStatus::from(status.clone())).unwrap(), status);
    let worker = WorkerStatus {
        worker: WorkerId(3),
        name: "w".into(),
        device: "cuda:0".into(),
        stage: None,
        job: Some(JobId("j".into())),
        shards: 4,
        leaving: true,
        suspect: true,
    };
    let (root, build, waiting) = ("r".into(), "b".into(), "for the store".into());
    let info = Info { root, term: 2, build, workers: vec![worker], waiting };
    assert_eq!(Info::from(pb::InfoReply::from(info.clone())), info);
}

#[test]
fn broken_messages_are_refused_by_field() {
    assert_eq!(FromWorker::try_from(pb::WorkerMessage { message: None }), Err(Invalid("message")));
    let failed = pb::worker_message::Message::Failed(pb::LeaseFailed { lease: 1, class: 0, reason: String::new() });
    assert_eq!(FromWorker::try_from(pb::WorkerMessage { message: Some(failed) }), Err(Invalid("class")));
    let message = ToWorker::Grant(Grant { shards: vec![3], ..grant() });
    assert_eq!(ToWorker::try_from(pb::CoordinatorMessage::from(message)), Err(Invalid("shards")));
    for rank in [0, 2] {
        let message = ToWorker::Generation(Generation { rank, ..generation() });
        assert_eq!(ToWorker::try_from(pb::CoordinatorMessage::from(message)), Err(Invalid("generation.rank")));
    }
}
